"""A moderated F statistic of each feature: how much of its variance the target explains.

The classic F divides by a variance that few samples estimate badly: of ten thousand features, the
largest F have small variances by chance, or exactly 0 in data of few levels. Here the median
variance of all features is added below, as in significance analysis of microarrays (Tusher et al.
2001), which bounds F and ranks such features lower.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .rows import Rows
from .scaling import Reals


def between_classes(table: Rows, labels: Tensor, classes: int, weights: Tensor) -> Reals:
    """Return the moderated F of the one-way analysis of variance, for each feature.

    F = b / (w + median of all w), b = between / (classes - 1), w = within / (samples - classes), of
    the weighted sums of squares between and within the classes that have a sample; 0 for a constant
    feature.

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


def along_targets(table: Rows, targets: Tensor, weights: Tensor) -> Reals:
    """Return the moderated F of regressing each feature on a target, the largest of all targets.

    F = explained / (w + median of all w), w = unexplained / (samples - 2), of the weighted sums of
    squares that the line through the targets explains and leaves; 0 for a constant feature.

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
    """Return signal / (noise + its median); 0 where there is no signal beyond rounding."""
    none = signal <= 1e-6 * squares
    varied = noise[squares > 0]
    middle = varied.median() if len(varied) else noise.new_zeros(())
    ratio = torch.where(none, 0.0, signal / (noise + middle).clamp_min(1e-9 * squares + 1e-30))
    array: Reals = np.asarray(ratio.numpy(), dtype=np.float64)
    return array
