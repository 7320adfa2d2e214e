"""Checks of arguments that several parts share: each returns the checked value or raises.

Every error names the argument, says what was expected and what was given.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsIndex, TypeVar, cast

import torch
from torch import Tensor, nn

_Kind = TypeVar("_Kind")


def as_int(value: SupportsIndex | None, name: str, *, least: int | None = None) -> int:
    """Return an int argument; a NumPy integer or a tensor of one integer becomes an int.

    Args:
        value: the argument.
        name: name of the argument, for the error.
        least: the smallest value allowed, or None for no bound.

    Raises:
        TypeError: the value is not an integer; a bool does not count as one.
        ValueError: the value is below `least`.
    """
    if not isinstance(value, bool) and isinstance(value, SupportsIndex):
        try:
            number = operator.index(value)
        except TypeError:  # an array, or a tensor of no single integer
            pass
        else:
            if least is not None and number < least:
                wanted = "not be negative" if least == 0 else f"be at least {least}"
                raise ValueError(f"`{name}` must {wanted}, got {number}")
            return number
    raise TypeError(f"`{name}` must be an int, got {type(value).__name__}")


def as_float(value: SupportsFloat | None, name: str) -> float:
    """Return a float argument; a NumPy number or a tensor of one number becomes a float.

    Raises:
        TypeError: the value is not a number; a bool does not count as one.
    """
    if not isinstance(value, bool) and isinstance(value, SupportsFloat):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):  # an array or a tensor of several numbers
            pass
    raise TypeError(f"`{name}` must be a number, got {type(value).__name__}")


def as_fraction(value: SupportsFloat | None, name: str) -> float:
    """Return a number in [0, 1]: a density, or a fraction of the connections.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value lies outside [0, 1], or is NaN.
    """
    number = as_float(value, name)
    if not 0 <= number <= 1:
        raise ValueError(f"`{name}` must lie in [0, 1], got {number}")
    return number


def as_scale(value: SupportsFloat | None, name: str) -> float:
    """Return a finite number of at least 0.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value is negative, infinite or NaN.
    """
    number = as_float(value, name)
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"`{name}` must be a finite number of at least 0, got {number}")
    return number


def check_generator(generator: torch.Generator | None) -> torch.Generator | None:
    """Return a `torch.Generator`, or None for torch's default one.

    Raises:
        TypeError: the value is neither.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(
            f"`generator` must be a torch.Generator or None, got {type(generator).__name__}"
        )
    return generator


def check_tensor(given: Any, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return a tensor of the given shape.

    Raises:
        TypeError: the value is not a tensor.
        ValueError: the tensor has another shape.
    """
    if not isinstance(given, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(given).__name__}")
    if given.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {tuple(given.shape)}")
    return given


def check_module(value: nn.Module, name: str) -> nn.Module:
    """Return an `nn.Module` as it is.

    Raises:
        TypeError: the value is something else.
    """
    if not isinstance(value, nn.Module):
        raise TypeError(f"`{name}` must be an nn.Module, got {type(value).__name__}")
    return value


def as_instance(
    value: str | _Kind, name: str, kind: type[Any], named: Mapping[str, _Kind]
) -> _Kind:
    """Return an object of a class: the argument itself, or the object that its name stands for.

    Args:
        value: the argument.
        name: name of the argument, for the error.
        kind: the class.
        named: the objects that have a name.

    Raises:
        TypeError: the value is neither a name nor an object of the class.
        ValueError: no object has this name.
    """
    if isinstance(value, str):
        if value not in named:
            raise ValueError(f"`{name}` must be one of {', '.join(named)}, got {value!r}")
        return named[value]
    if isinstance(value, kind):
        return cast(_Kind, value)
    hint = f"; write {value.__name__}()" if isinstance(value, type) else ""
    raise TypeError(f"`{name}` must be a {kind.__name__} or its name, got {value!r}{hint}")
