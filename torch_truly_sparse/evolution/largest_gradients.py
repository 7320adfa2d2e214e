"""The empty positions with the largest gradients, found block by block."""

from __future__ import annotations

import torch
from torch import Tensor

from .captured_gradient import CapturedGradient
from .prune import smallest


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

    Cost: O(out_features in_features batch) time; O(n + count) memory and one block.
    """
    best = _RunningLargest(count, occupied)
    if count:
        ends = torch.arange(gradient.out_features + 1, device=occupied.device)
        row_ends = torch.searchsorted(occupied, ends.mul_(gradient.in_features)).tolist()
        for first, block in gradient.blocks():
            inside = occupied[row_ends[first] : row_ends[first + block.shape[0]]]
            start = first * gradient.in_features
            best.add(*empty_above(block, start, inside, best.threshold))
    return best.positions()


def empty_above(
    block: Tensor, start: int, occupied: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Take from some rows all empty positions whose |gradient| is greater than a threshold.

    Args:
        block: (rows, in_features) gradients, contiguous; overwritten.
        start: position of the first entry of the block.
        occupied: (n,) int64 positions inside the block that are not empty, increasing.
        threshold: what |gradient| must exceed; below 0 all empty positions are taken.

    Returns:
        Their positions (m,) int64, increasing, and |gradient| (m,) there, NaN as 0.

    Cost: O(rows in_features).
    """
    magnitudes = block.view(-1).abs_()
    if threshold < 0:  # otherwise no comparison lets NaN pass
        magnitudes.nan_to_num_(nan=0.0, posinf=torch.inf)
        threshold = -1.0
    magnitudes[occupied - start] = -1.0
    found = (magnitudes > threshold).nonzero().squeeze(1)
    return found + start, magnitudes[found]


class _RunningLargest:
    """Keeps the `count` largest of a stream whose positions increase.

    What has been found is sorted out whenever it is twice as many as wanted: each costs O(1).
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
        if self._total >= 2 * self._count:
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
        kept = smallest(-magnitudes, self._count)
        self._found = [(positions[kept], magnitudes[kept])]
        self._total = self._count
        self.threshold = float(self._found[0][1].min())
