"""How one number per connection follows a change of the topology."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def move(entries: Tensor, source: Tensor, fresh: Tensor | float) -> Tensor:
    """Carry one number per connection over to the next topology.

    Args:
        entries: (n,) in the order of the present topology, of any dtype of at most 8 bytes.
        source: (nnz,) int32 or int64, where the number of each connection of the next topology
            comes from: i for entries[i], ~g (which is -1 - g) for fresh[g].
        fresh: (count,) of the dtype of `entries`, or one number for all new connections.

    Returns:
        (nnz,) of the dtype of `entries`, in the order of the next topology, new memory.

    Raises:
        ValueError: shapes or dtypes do not fit, or `source` points outside `entries` or `fresh`.

    Cost: O(nnz).
    """
    if not isinstance(fresh, Tensor):
        fresh = torch.full((), fresh, dtype=entries.dtype, device=entries.device)
    output: Tensor = operators.move(entries, source, fresh)
    return output


@fake("move")
def _move_fake(entries: Tensor, source: Tensor, fresh: Tensor) -> Tensor:
    return entries.new_empty(source.shape)


@plain_torch("move")
def move_reference(entries: Tensor, source: Tensor, fresh: Tensor) -> Tensor:
    """Compute `move` in plain torch, on any device."""
    is_fresh = source < 0
    held = (source >= entries.shape[0]).any()
    if held or (fresh.dim() and (is_fresh & (~source >= fresh.shape[0])).any()):
        raise ValueError(
            f"`source` must name one of the {entries.shape[0]} `entries`, or ~g for one of `fresh`"
        )
    moved = entries.new_empty(source.shape)
    moved[~is_fresh] = entries[source[~is_fresh].long()]
    moved[is_fresh] = fresh[~source[is_fresh].long()] if fresh.dim() else fresh
    return moved
