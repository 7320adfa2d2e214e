"""The empty positions with the largest gradients, found block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import empty_above, keep_largest
from .captured_gradient import CapturedGradient


def largest_empty_positions(gradient: CapturedGradient, occupied: Tensor, count: int) -> Tensor:
    """Find the `count` empty positions whose gradients are the largest by absolute value.

    Of equal ones those with the lowest positions are taken; NaN counts as 0.

    Args:
        gradient: at every position of the layer.
        occupied: (n,) int64 positions that are not empty, increasing.
        count: how many to find, at most the number of empty positions.

    Returns:
        (count,) int64, increasing, new memory.

    Raises:
        ValueError: there are fewer empty positions.

    Cost: O(out_features in_features batch) time; O(n + count) memory and a block
    for each thread.
    """
    best = _RunningLargest(count, occupied)
    if count:
        ends = torch.arange(gradient.out_features + 1, device=occupied.device)
        row_ends = torch.searchsorted(occupied, ends.mul_(gradient.in_features)).tolist()

        def search(first: int, block: Tensor) -> tuple[Tensor, Tensor]:
            inside = occupied[row_ends[first] : row_ends[first + block.shape[0]]]
            # The threshold of any moment will do: a lower one lets pass what is sorted out later.
            return empty_above(
                block.reshape(-1), first * gradient.in_features, inside, best.threshold
            )

        for found in gradient.map_blocks(search):
            best.add(*found)
    return best.positions()


class _RunningLargest:
    """Keeps the `count` largest of a stream whose positions increase.

    What has been found is sorted out whenever it is three times as many as wanted: each costs O(1).
    """

    def __init__(self, count: int, occupied: Tensor) -> None:
        self._count = count
        self._found: list[tuple[Tensor, Tensor]] = []
        self._total = 0
        self._empty = occupied.new_empty(0)
        self.threshold = -1.0

    def add(self, positions: Tensor, magnitudes: Tensor) -> None:
        """Take some more."""
        self._found.append((positions, magnitudes))
        self._total += positions.shape[0]
        if self._total >= 3 * self._count:
            self._sort_out()

    def positions(self) -> Tensor:
        """Give the positions of the largest, increasing."""
        if self._total < self._count:
            raise ValueError(
                f"`count` must be at most the {self._total} empty positions, got {self._count}"
            )
        if not self._count:
            return self._empty
        self._sort_out()
        return self._found[0][0]

    def _sort_out(self) -> None:
        positions, magnitudes = (torch.cat(parts) for parts in zip(*self._found, strict=True))
        # The first of equal ones are kept, and what comes later must exceed the least of them.
        magnitudes, positions = keep_largest(magnitudes, positions, self._count)
        self._found = [(positions, magnitudes)]
        self._total = self._count
        self.threshold = float(magnitudes.min())
