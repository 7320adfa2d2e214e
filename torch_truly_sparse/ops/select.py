"""Exact selection of the smallest or largest numbers, without a sort."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def mark_smallest(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` smallest of `scores`; among equal scores, those that come first.

    -0.0 equals 0.0; NaN is larger than infinity.

    Args:
        scores: (n,), of any real dtype; float32 and float64 on the CPU are fast.
        count: between 0 and n.

    Returns:
        (n,) bool with exactly `count` True, new memory. The same for any number of threads.

    Raises:
        ValueError: `count` is out of range, or `scores` is not one-dimensional.

    Cost: O(n) time, and at most 512 KiB of scratch for each thread; half-precision scores are first
    copied to float32, all other dtypes are sorted, in O(n log n).
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if scores.dtype not in (torch.float32, torch.float64):
        return mark_smallest_reference(scores, count)
    output: Tensor = operators.mark_smallest(scores, count)
    return output


@fake("mark_smallest")
def _mark_smallest_fake(scores: Tensor, count: int) -> Tensor:
    return scores.new_empty(scores.shape, dtype=torch.bool)


@plain_torch("mark_smallest")
def mark_smallest_reference(scores: Tensor, count: int) -> Tensor:
    """Compute `mark_smallest` in plain torch, on any device, by a sort."""
    if scores.dim() != 1:
        raise ValueError(f"`scores` must have 1 dimension(s), got {scores.dim()}")
    _check_count(count, scores.shape[0], "count")
    marked = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    marked[scores.argsort(stable=True)[:count]] = True
    return marked


def mark_weakest(weights: Tensor, positive: int, negative: int) -> Tensor:
    """Mark the weights closest to zero: `positive` of those not below 0, `negative` of those below.

    Among equal weights, those that come first are marked.

    Args:
        weights: (n,) float32 or float64.
        positive: number of weights to mark among those not below 0. Zeros and NaN are among them;
            NaN is the farthest from zero.
        negative: number of weights to mark among those below 0.

    Returns:
        (n,) bool with exactly `positive + negative` True, new memory. The same for any number of
        threads.

    Raises:
        ValueError: `positive` or `negative` exceeds the number of such weights or is negative, or
            dtype or shape do not fit.

    Cost: O(n) time, and at most 1 MiB of scratch for each thread.
    """
    output: Tensor = operators.mark_weakest(weights, positive, negative)
    return output


@fake("mark_weakest")
def _mark_weakest_fake(weights: Tensor, positive: int, negative: int) -> Tensor:
    return weights.new_empty(weights.shape, dtype=torch.bool)


@plain_torch("mark_weakest")
def mark_weakest_reference(weights: Tensor, positive: int, negative: int) -> Tensor:
    """Compute `mark_weakest` in plain torch, on any device, by two sorts."""
    marked = torch.zeros(weights.shape, dtype=torch.bool, device=weights.device)
    below = weights < 0
    for side, count, name in ((~below, positive, "positive"), (below, negative, "negative")):
        members = side.nonzero().squeeze(1)
        _check_count(count, members.shape[0], name)
        marked[members[weights[members].abs().argsort(stable=True)[:count]]] = True
    return marked


def keep_largest(numbers: Tensor, positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest of `numbers`, in their order; among equal ones, the first.

    -0.0 equals 0.0; NaN is larger than infinity.

    Args:
        numbers: (n,) float32 or float64.
        positions: (n,) int64, one for each number.
        count: between 0 and n.

    Returns:
        The largest numbers, (count,), and their positions, (count,), each of the dtype of its
        argument and new memory. The same for any number of threads.

    Raises:
        ValueError: `count` is out of range, or shapes and dtypes do not fit.

    Cost: O(n) time, and scratch of n bytes and at most 512 KiB for each thread.
    """
    kept: tuple[Tensor, Tensor] = operators.keep_largest(numbers, positions, count)
    return kept


@fake("keep_largest")
def _keep_largest_fake(numbers: Tensor, positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    return numbers.new_empty((count,)), positions.new_empty((count,))


@plain_torch("keep_largest")
def keep_largest_reference(numbers: Tensor, positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute `keep_largest` in plain torch, on any device, by a sort."""
    _check_count(count, numbers.shape[0], "count")
    kept = numbers.argsort(stable=True, descending=True)[:count].sort().values
    return numbers[kept], positions[kept]


def _check_count(count: int, most: int, name: str) -> None:
    if not 0 <= count <= most:
        raise ValueError(f"`{name}` must be between 0 and {most}, the number of them, got {count}")
