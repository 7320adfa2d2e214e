"""The memory of weights: how much, and in which precision."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..functional import HALVES


def default_weight_dtype() -> torch.dtype:
    """Return torch's default dtype, and float32 where this is a dtype of activations alone."""
    default = torch.get_default_dtype()
    return torch.float32 if default in HALVES else default


def make_room(parameter: nn.Parameter, size: int) -> None:
    """Put uninitialised memory for `size` numbers beneath a parameter, and drop its gradient."""
    parameter.grad = None
    with torch.inference_mode(False):
        room = parameter.new_empty(size)
        # A graph that is still alive (a kept loss) holds the node that accumulates this gradient,
        # and the node expects the old size; torch makes a new node when the dtype changes.
        other = torch.float64 if room.dtype == torch.float32 else torch.float32
        parameter.data = room.new_empty(0, dtype=other)
        parameter.data = room


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """Load states into the tensors that are there, even where torch is told to swap them.

    `torch.__future__.set_swap_module_params_on_conversion(True)` makes torch exchange the tensors
    themselves, which it cannot where somebody holds a reference; a layer keeps its topology by one.
    """
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(False)
    try:
        yield
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def in_full_precision(tensor: Tensor) -> Tensor:
    """Return a bfloat16 or float16 tensor as float32, and any other tensor as it is."""
    return tensor.float() if tensor.dtype in HALVES else tensor


def keeping_full_precision(convert: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap a conversion such as `nn.Module.half()` so that weights stay float32.

    Args:
        convert: the conversion of each tensor of a layer.

    Returns:
        A function that moves and converts as `convert` does, except that it returns float32 where
        `convert` returns bfloat16 or float16, and that it leaves integers their dtype.
    """

    def keep(tensor: Tensor) -> Tensor:
        converted = convert(tensor)
        if not tensor.is_floating_point():
            return tensor.to(converted.device) if converted.dtype != tensor.dtype else converted
        if converted.dtype in HALVES:
            return tensor.to(converted.device, torch.float32)
        return converted

    return keep
