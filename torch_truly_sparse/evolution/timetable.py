"""Counts of optimizer steps: what they may be, and after which a network evolves by itself."""

from __future__ import annotations

from typing import SupportsIndex

from .._arguments import as_int


def next_evolution(after: int, every: int | None, stop: int | None) -> int | None:
    """Give the first step later than `after` at which the network evolves, or None.

    Args:
        after: an optimizer step, counted from 1; 0 is before the first.
        every: evolve right after the first step of each interval of so many, but for the first
            interval: every + 1, 2 every + 1, ...; None for never.
        stop: the last step at which it may, or None for no end.

    Example:
        >>> [next_evolution(after, every=3, stop=8) for after in (0, 3, 4, 6, 7)]
        [4, 4, 7, 7, None]
    """
    if every is None:
        return None
    intervals = max(-(-after // every), 1)
    step = intervals * every + 1
    return step if stop is None or step <= stop else None


def as_steps(steps: SupportsIndex, name: str) -> int:
    """Take a number of optimizer steps: an int of at least 1."""
    return as_int(steps, name, least=1)
