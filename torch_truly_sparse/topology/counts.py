"""How many connections a layer gets."""

from __future__ import annotations

from fractions import Fraction

from .._arguments import as_fraction, as_int, as_scale
from .sizes import check_size


def count_connections(
    out_features: int,
    in_features: int,
    *,
    density: float | None = None,
    epsilon: float | None = None,
    nnz: int | None = None,
) -> int:
    """Return the number of connections given by `density`, `epsilon` or `nnz`.

    Args:
        out_features: number of output units.
        in_features: number of input units.
        density: fraction of all possible connections, in [0, 1]; the count is rounded to the
            nearest integer, see `connections_at`.
        epsilon: scale of an Erdos-Renyi topology, at least 0:
            round(epsilon (in_features + out_features)) connections, at most all possible ones.
        nnz: the number of connections itself.

    Raises:
        TypeError: not exactly one of `density`, `epsilon` and `nnz` is given, `nnz` is not an int,
            or `density` or `epsilon` is not a number.
        ValueError: an argument is out of range.

    Source: Mocanu et al. 2018, "Scalable training of artificial neural networks with adaptive
    sparse connectivity" (doi 10.1038/s41467-018-04316-3), for epsilon. Their code draws connections
    with replacement and so ends with slightly fewer; the count here is exact.

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
    check_size((out_features, in_features))
    positions = out_features * in_features
    if density is not None:
        return connections_at(as_fraction(density, "density"), positions)
    if epsilon is not None:
        epsilon = as_scale(epsilon, "epsilon")
        return min(round(epsilon * (in_features + out_features)), positions)
    nnz = as_int(nnz, "nnz")
    if not 0 <= nnz <= positions:
        raise ValueError(
            f"`nnz` must lie in [0, in_features * out_features] = [0, {positions}], got {nnz}"
        )
    return nnz


def connections_at(density: float, positions: int) -> int:
    """Return round(density * positions), without floating-point error at any size.

    Every density in this package becomes a number of connections here.

    Args:
        density: fraction of the positions, in [0, 1]; the caller has checked it.
        positions: number of positions in all.

    Example:
        >>> connections_at(0.05, 10)  # the float is a little more than 1 / 20
        1
        >>> connections_at(0.5, 5)  # a tie goes to the even count
        2
    """
    return round(Fraction(density) * positions)


def _named(
    density: float | None, epsilon: float | None, nnz: int | None
) -> tuple[tuple[str, float | None], ...]:
    return (("density", density), ("epsilon", epsilon), ("nnz", nnz))
