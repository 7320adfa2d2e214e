"""Memory of another size for a parameter that stays the same object."""

from __future__ import annotations

import torch
from torch import nn


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
