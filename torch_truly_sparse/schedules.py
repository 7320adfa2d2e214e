"""Schedules: how the fraction of replaced connections changes during training.

A schedule is any function of the number of optimizer steps so far; these are the common ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, SupportsFloat

from ._arguments import as_fraction, as_int

__all__ = ["ByEpoch", "Constant", "Cosine", "Linear", "Schedule"]


class Schedule(Protocol):
    """Gives the fraction of connections to replace."""

    def __call__(self, step: int) -> float:
        """Give the fraction in [0, 1] after `step` optimizer steps."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class Constant:
    """The same fraction at every evolution (SET: 0.3).

    Args:
        fraction: in [0, 1].

    Raises:
        TypeError, ValueError: the fraction is no number or out of range.
    """

    fraction: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", as_fraction(self.fraction, "fraction"))

    def __call__(self, step: int) -> float:
        """Give the fraction."""
        return self.fraction


@dataclass(frozen=True)
class _Falling:
    """The settings of a schedule that falls from `fraction` at step 0 to 0 at step `end`."""

    fraction: float
    end: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "fraction", as_fraction(self.fraction, "fraction"))
        object.__setattr__(self, "end", as_int(self.end, "end", least=1))


class Cosine(_Falling):
    """The fraction `fraction / 2 (1 + cos(pi step / end))`, and 0 from `end` on.

    Args:
        fraction: the fraction at step 0, in [0, 1].
        end: the step from which nothing is replaced any more, at least 1.

    Raises:
        TypeError, ValueError: an argument is no number or out of range.

    Source: RigL, Evci et al. 2020 (arXiv 1911.11134), 0.3 to 75 % of the training there.

    Example:
        >>> [round(Cosine(0.3, end=4)(step), 3) for step in range(6)]
        [0.3, 0.256, 0.15, 0.044, 0.0, 0.0]
    """

    def __call__(self, step: int) -> float:
        """Give the fraction after `step` steps."""
        if step >= self.end:
            return 0.0
        return self.fraction / 2 * (1 + math.cos(math.pi * step / self.end))


class Linear(_Falling):
    """The fraction `fraction (1 - step / end)`, and 0 from `end` on.

    Args:
        fraction: the fraction at step 0, in [0, 1].
        end: the step from which nothing is replaced any more, at least 1.

    Raises:
        TypeError, ValueError: an argument is no number or out of range.

    Example:
        >>> [Linear(0.5, end=4)(step) for step in range(6)]
        [0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    """

    def __call__(self, step: int) -> float:
        """Give the fraction after `step` steps."""
        return self.fraction * max(1 - step / self.end, 0.0)


@dataclass(frozen=True)
class ByEpoch:
    """Another schedule, told the number of finished epochs in place of optimizer steps.

    Args:
        schedule: what gives the fraction; a number is a constant one.
        steps_per_epoch: optimizer steps in an epoch, usually len(loader). The step right after
            an epoch still belongs to it: that is when the network evolves.

    Example:
        >>> schedule = ByEpoch(Linear(0.5, end=5), steps_per_epoch=100)
        >>> [schedule(step) for step in (0, 100, 101, 200, 201)]
        [0.5, 0.5, 0.4, 0.4, 0.3]
    """

    schedule: Schedule
    steps_per_epoch: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", as_schedule(self.schedule, "schedule"))
        steps = as_int(self.steps_per_epoch, "steps_per_epoch", least=1)
        object.__setattr__(self, "steps_per_epoch", steps)

    def __call__(self, step: int) -> float:
        """Give the fraction after the epochs that `step` steps complete."""
        return self.schedule(max(step - 1, 0) // self.steps_per_epoch)


def as_schedule(value: float | Schedule, name: str) -> Schedule:
    """Return a schedule: the argument itself, or a constant one for a number.

    Args:
        value: the argument.
        name: of the argument, for the error.

    Raises:
        TypeError: the value is neither a number nor a function.
        ValueError: the number lies outside [0, 1].
    """
    if callable(value) and not isinstance(value, type):
        return value
    if isinstance(value, SupportsFloat):
        return Constant(as_fraction(value, name))
    raise TypeError(f"`{name}` must be a number or a schedule, got {value!r}")
