"""The empty positions of a block whose gradients exceed a threshold."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def empty_above(
    gradients: Tensor, start: int, occupied: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Find the empty positions of a block for which |gradient| > threshold.

    Args:
        gradients: (n,) float32 or float64, the gradients of positions start, ..., start + n - 1.
        start: position of the first gradient.
        occupied: (m,) int64 positions of the block that are not empty, increasing.
        threshold: a negative threshold takes every empty position, even those whose gradient is
            NaN; a threshold of 0 or more is exceeded by no NaN.

    Returns:
        The positions found, (count,) int64, increasing, and |gradient| at each, (count,) of the
        dtype of `gradients`, with NaN replaced by 0. Both are new memory.

    Raises:
        ValueError: `occupied` does not increase or leaves the block, or shapes and dtypes do not
            fit.

    Cost: O(n + m) time on one thread; n / 8 bytes of scratch.
    """
    found: tuple[Tensor, Tensor] = operators.empty_above(gradients, start, occupied, threshold)
    return found


@fake("empty_above")
def _empty_above_fake(
    gradients: Tensor, start: int, occupied: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return gradients.new_empty((count,), dtype=torch.int64), gradients.new_empty((count,))


@plain_torch("empty_above")
def empty_above_reference(
    gradients: Tensor, start: int, occupied: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Compute `empty_above` in plain torch, on any device."""
    n, places = gradients.shape[0], occupied - start
    if places.numel() and (places[0] < 0 or places[-1] >= n or places.diff().lt(0).any()):
        raise ValueError(
            f"`occupied` must increase and lie in [start, start + n) = [{start}, {start + n})"
        )
    magnitudes = gradients.abs()
    above = magnitudes > threshold if not threshold < 0 else torch.ones_like(magnitudes).bool()
    above[places] = False
    found = above.nonzero().squeeze(1)
    return found + start, magnitudes[found].nan_to_num(nan=0.0, posinf=torch.inf)
