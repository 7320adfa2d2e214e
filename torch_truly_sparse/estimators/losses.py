"""What the networks of an estimator are trained to make small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SquaredLoss:
    """Weighted squared error: the mean over samples and outputs of w (output - target)^2.

    Args:
        targets: (samples, outputs) float32.
        weights: (samples, outputs) float32.
    """

    targets: Tensor
    weights: Tensor

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of each member: (members,) from (members, batch, outputs).

        `rows` are the numbers of the samples of the batch.
        """
        error = (outputs - self.targets[rows]).square_()
        return (error * self.weights[rows]).mean(dim=(1, 2))


@dataclass(frozen=True)
class CrossEntropy:
    """Weighted cross-entropy with the probabilities softmax(outputs).

    Args:
        targets: (samples, classes) float32, each row summing to 1.
        weights: (samples, 1) float32.
    """

    targets: Tensor
    weights: Tensor

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of each member: (members,) from (members, batch, outputs)."""
        logs = F.log_softmax(outputs, dim=2) * self.targets[rows]
        return -(logs.sum(dim=2, keepdim=True) * self.weights[rows]).mean(dim=(1, 2))


def one_against_rest(
    labels: Tensor, classes: int, weights: Tensor, *, balanced: bool
) -> SquaredLoss:
    """Return the squared loss with the targets +1 for a sample's class and -1 for the others.

    Args:
        labels: (samples,) int64.
        classes: number of classes.
        weights: (samples,) float32 with a mean of 1.
        balanced: give, in each output, the samples of the class and all others the same total
            weight, half of all each.
    """
    inside = F.one_hot(labels, classes).float()
    share = weights[:, None].expand(-1, classes)
    if balanced:
        total = weights.sum()
        of_class = (inside * share).sum(dim=0)
        of_rest = total - of_class
        tiny = torch.finfo(torch.float32).tiny  # a class alone, or of weight 0
        scale = torch.where(inside > 0, total / (2 * of_class).clamp_min(tiny), 0.0)
        scale += torch.where(inside > 0, 0.0, total / (2 * of_rest).clamp_min(tiny))
        share = share * scale
    return SquaredLoss(2 * inside - 1, share.contiguous())


def smoothed_cross_entropy(
    labels: Tensor, classes: int, weights: Tensor, *, smoothing: float, balanced: bool
) -> CrossEntropy:
    """Return the cross-entropy with smoothed labels; arguments as `one_against_rest` has them."""
    inside = F.one_hot(labels, classes).float()
    if balanced:
        of_class = (inside * weights[:, None]).sum(dim=0)
        present = (of_class > 0).sum()
        weights = weights * (weights.sum() / (present * of_class.clamp_min(1e-30)))[labels]
    return CrossEntropy(inside * (1 - smoothing) + smoothing / classes, weights[:, None])
