"""The memory of weights: how much, and in which precision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..functional import HALVES


def make_room(parameter: nn.Parameter, size: int) -> None:
    """Put uninitialised memory for so many numbers beneath a parameter, and drop its gradient."""
    parameter.grad = None
    with torch.inference_mode(False):
        room = parameter.new_empty(size)
        # A graph that is still alive (a kept loss) holds the node that accumulates this
        # gradient, with the size of old; torch makes a new one when the dtype changes.
        other = torch.float64 if room.dtype == torch.float32 else torch.float32
        parameter.data = room.new_empty(0, dtype=other)
        parameter.data = room


def in_full_precision(tensor: Tensor) -> Tensor:
    """Give a bfloat16 or float16 tensor as float32, any other as it is."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def keeping_full_precision(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Keep weights float32 where `nn.Module.half()` and the like would make them half.

    Args:
        convert: what is to be done to every tensor of a layer.

    Returns:
        A function that moves and converts as `convert` does, but gives float32 where that gives a
        half, and leaves integers their dtype.
    """

    def keep(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        if not tensor.is_floating_point():
            return tensor.to(converted.device) if converted.dtype != tensor.dtype else converted
        if converted.dtype in HALVES:
            return tensor.to(converted.device, torch.float32)
        return converted

    return keep
