"""The F statistic of each feature: how much of its variance the target explains."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .scaling import Reals

LARGEST = 1e6  # of a feature that separates the classes perfectly, which would be infinite


class Columns(Protocol):
    """A table of samples x features that can be multiplied from the left."""

    samples: int
    features: int

    def summed(self, groups: Tensor) -> Tensor:
        """Return groups @ table: (groups, features) from (groups, samples)."""
        ...  # pragma: no cover

    def squares_summed(self, weights: Tensor) -> Tensor:
        """Return weights @ table^2: (features,) from (samples,)."""
        ...  # pragma: no cover


def between_classes(table: Columns, labels: Tensor, classes: int, weights: Tensor) -> Reals:
    """Return F of the one-way analysis of variance between classes, for each feature.

    F = (between / (classes - 1)) / (within / (samples - classes)), of the weighted sums of squares
    between and within the classes that have a sample; 0 for a constant feature.

    Args:
        table: the scaled features.
        labels: (samples,) int64.
        classes: number of classes.
        weights: (samples,) with a mean of 1.

    Cost: O(samples features classes).
    """
    inside = torch.nn.functional.one_hot(labels, classes).float() * weights[:, None]
    sizes = inside.sum(dim=0).double()
    present = sizes > 0
    sums = table.summed(inside.t().contiguous()).double()[present]
    squares = table.squares_summed(weights).double()
    sizes = sizes[present]
    explained = (sums**2 / sizes[:, None]).sum(dim=0)
    between = (explained - sums.sum(dim=0) ** 2 / sizes.sum()).clamp_min(0)
    within = (squares - explained).clamp_min(0)
    groups = len(sizes)
    return _ratio(between / max(groups - 1, 1), within / max(table.samples - groups, 1), squares)


def along_targets(table: Columns, targets: Tensor, weights: Tensor) -> Reals:
    """Return F of the linear regression of each target on each feature, the largest of all targets.

    F = (samples - 2) r^2 / (1 - r^2), r the correlation; 0 for a constant feature.

    Args:
        table: the scaled features.
        targets: (samples, outputs) float32.
        weights: (samples,) with a mean of 1.
    """
    total = weights.sum().double()
    centred = targets - (weights @ targets) / weights.sum()
    products = table.summed((centred * weights[:, None]).t().contiguous()).double()
    means = table.summed(weights[None]).double()[0] / total
    squares = table.squares_summed(weights).double()
    spread = (squares - total * means**2).clamp_min(0)
    of_targets = (weights[:, None] * centred**2).sum(dim=0).double()
    explained = products**2 / of_targets.clamp_min(1e-30)[:, None]
    best = explained.amax(dim=0)
    return _ratio(best, (spread - best).clamp_min(0) / max(table.samples - 2, 1), squares)


def _ratio(signal: Tensor, noise: Tensor, squares: Tensor) -> Reals:
    """Return signal / noise, at most LARGEST; 0 where there is no signal beyond rounding."""
    none = signal <= 1e-6 * squares
    ratio = torch.where(none, 0.0, signal / noise.clamp_min(1e-30)).clamp_max(LARGEST)
    array: Reals = np.asarray(ratio.numpy(), dtype=np.float64)
    return array
