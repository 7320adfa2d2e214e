"""All-ReLU: a ReLU whose negative side has a slope of alternating sign."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .._arguments import as_int


class AllReLU(nn.Module):
    """The activation `x` for x > 0, `-alpha x` in even layers and `alpha x` in odd ones for x <= 0.

    The two signs together keep the mean activation of a deep sparse network near zero. All-ReLU
    follows hidden layers; it is not applied to the input or the output of a network.

    Args:
        alpha: slope of the negative side; the paper takes 0.6 for Fashion-MNIST and 0.75 for
            CIFAR-10.
        layer_index: number of the hidden layer that the activation follows; its parity gives the
            sign of the slope. The paper counts layers from 1.

    Shape: any; the output has the shape and dtype of the input.

    Raises:
        TypeError: `layer_index` is not an int.
        ValueError: `alpha` is not finite.

    Source: Curci et al. 2021, "Truly sparse neural networks at scale" (arXiv 2102.01732).

    Example:
        >>> import torch
        >>> AllReLU(0.5, layer_index=1)(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([-1.,  0.,  3.])
        >>> AllReLU(0.5, layer_index=2)(torch.tensor([-2.0, 0.0, 3.0]))
        tensor([1., -0., 3.])
    """

    def __init__(self, alpha: float = 0.6, *, layer_index: int) -> None:
        super().__init__()
        layer_index = as_int(layer_index, "layer_index")
        if not math.isfinite(alpha):
            raise ValueError(f"`alpha` must be finite, got {alpha}")
        self.alpha = float(alpha)
        self.layer_index = layer_index

    def forward(self, input: Tensor) -> Tensor:
        """Apply the activation to each entry."""
        slope = self.alpha if self.layer_index % 2 else -self.alpha
        return F.leaky_relu(input, slope)

    def extra_repr(self) -> str:
        """Describe the activation as `print(model)` shows it."""
        return f"alpha={self.alpha:g}, layer_index={self.layer_index}"
