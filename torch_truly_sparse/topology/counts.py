"""How many connections a layer gets."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import SupportsFloat, SupportsIndex

from .coordinates import check_size


def count_connections(
    out_features: int,
    in_features: int,
    *,
    density: float | None = None,
    epsilon: float | None = None,
    nnz: int | None = None,
) -> int:
    """Turn one of three ways of saying it into a number of connections.

    Args:
        out_features: number of output units.
        in_features: number of input units.
        density: fraction of all connections, in [0, 1]; the count is rounded to the nearest.
        epsilon: scale of an Erdos-Renyi topology, at least 0:
            round(epsilon (in_features + out_features)) connections, at most all of them.
        nnz: the count itself.

    Raises:
        TypeError: not exactly one of the three is given, `nnz` is not an int, or another is no
            number.
        ValueError: it is out of range.

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive
    sparse connectivity" (doi 10.1038/s41467-018-04316-3), for epsilon. Their code draws with
    replacement and ends a little short; the count here is exact.

    Example:
        >>> count_connections(300, 784, density=0.05)
        11760
        >>> count_connections(300, 784, epsilon=20)
        21680
    """
    given = [name for name, value in _named(density, epsilon, nnz) if value is not None]
    if len(given) != 1:
        raise TypeError(
            "exactly one of `density`, `epsilon` and `nnz` must be given, got "
            + (", ".join(f"`{name}`" for name in given) or "none")
        )
    check_size(out_features, in_features)
    positions = out_features * in_features
    if density is not None:
        density = as_float(density, "density")
        if not 0 <= density <= 1:
            raise ValueError(f"`density` must lie in [0, 1], got {density}")
        return round(Fraction(density) * positions)  # exact, whatever the size
    if epsilon is not None:
        epsilon = as_float(epsilon, "epsilon")
        if not 0 <= epsilon < float("inf"):
            raise ValueError(f"`epsilon` must be a finite number of at least 0, got {epsilon}")
        return min(round(epsilon * (in_features + out_features)), positions)
    nnz = as_int(nnz, "nnz")
    if not 0 <= nnz <= positions:
        raise ValueError(
            f"`nnz` must lie in [0, in_features * out_features] = [0, {positions}], got {nnz}"
        )
    return nnz


def as_int(value: SupportsIndex | None, name: str) -> int:
    """Take an int, or what stands for one (a NumPy integer); a TypeError for anything else."""
    if not isinstance(value, bool) and isinstance(value, SupportsIndex):
        try:
            return operator.index(value)
        except TypeError:  # an array, or a tensor of something else
            pass
    raise TypeError(f"`{name}` must be an int, got {type(value).__name__}")


def as_float(value: SupportsFloat | None, name: str) -> float:
    """Take a number, or what stands for one (of NumPy, a tensor of one number).

    Raises:
        TypeError: it is anything else.
    """
    if not isinstance(value, bool) and isinstance(value, SupportsFloat):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # an array or a tensor of several
            pass
    raise TypeError(f"`{name}` must be a number, got {type(value).__name__}")


def _named(
    density: float | None, epsilon: float | None, nnz: int | None
) -> tuple[tuple[str, float | None], ...]:
    return (("density", density), ("epsilon", epsilon), ("nnz", nnz))
