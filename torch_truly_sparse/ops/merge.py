"""The next topology: the present one without the dropped connections, with the regrown ones."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .positions import from_positions_reference, to_positions_reference
from .registration import fake, plain_torch


def merge(
    indices: Tensor,
    dropped: Tensor,
    regrown: Tensor,
    survivors: int,
    shape: tuple[int, int],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Merge the surviving and the regrown connections of a topology into one sorted order.

    Args:
        indices: (2, nnz) int32 or int64, the present topology, sorted and unique.
        dropped: (nnz,) bool, True for each connection that is dropped.
        regrown: (m,) int64 positions (`out * in_features + in`) of new connections, increasing;
            no survivor may have one of them.
        survivors: number of connections that are not dropped.
        shape: (out_features, in_features).
        dtype: int32 or int64, the dtype of the results; it must hold the sizes and the counts.

    Returns:
        The next indices (2, survivors + m), sorted and unique, and the source (survivors + m,) of
        each connection in them: i for connection i of `indices`, ~g (which is -1 - g) for regrown
        connection g. Both have the dtype `dtype` and are new memory.

    Raises:
        ValueError: `regrown` does not increase, leaves the matrix or holds the position of a
            survivor; `indices` are out of range, unsorted or not unique; `survivors` is wrong; or
            shapes and dtypes do not fit.

    Cost: O(nnz + m).
    """
    narrow = dtype == torch.int32
    following: tuple[Tensor, Tensor] = operators.merge(
        indices, dropped, regrown, survivors, *shape, narrow
    )
    return following


@fake("merge")
def _merge_fake(
    indices: Tensor,
    dropped: Tensor,
    regrown: Tensor,
    survivors: int,
    out_features: int,
    in_features: int,
    narrow: bool,
) -> tuple[Tensor, Tensor]:
    nnz = survivors + regrown.shape[0]
    dtype = torch.int32 if narrow else torch.int64
    return indices.new_empty((2, nnz), dtype=dtype), indices.new_empty((nnz,), dtype=dtype)


@plain_torch("merge")
def merge_reference(
    indices: Tensor,
    dropped: Tensor,
    regrown: Tensor,
    survivors: int,
    out_features: int,
    in_features: int,
    narrow: bool,
) -> tuple[Tensor, Tensor]:
    """Compute `merge` in plain torch, on any device."""
    if not regrown.diff().gt(0).all():
        raise ValueError("regrown positions must be increasing and distinct")
    if regrown.numel() and (regrown[0] < 0 or regrown[-1] >= out_features * in_features):
        raise ValueError("regrown positions must lie in [0, out_features * in_features)")
    kept = to_positions_reference(indices, dropped, survivors, in_features)
    if not kept.diff().gt(0).all():
        raise ValueError("`indices` must be sorted by output unit, then input unit, and unique")
    before = torch.searchsorted(kept, regrown)  # number of survivors before each
    slots = before + torch.arange(regrown.shape[0], device=regrown.device)
    grown = torch.zeros(survivors + regrown.shape[0], dtype=torch.bool, device=indices.device)
    grown[slots] = True
    positions = kept.new_empty(grown.shape)
    positions.masked_scatter_(~grown, kept).masked_scatter_(grown, regrown)
    if not positions.diff().gt(0).all():
        raise ValueError("regrown positions must not be among those that survive")
    following = from_positions_reference(positions, out_features, in_features, narrow)
    source = following.new_empty(grown.shape)
    source[~grown] = (~dropped).nonzero().squeeze(1).to(source.dtype)
    source[grown] = ~torch.arange(regrown.shape[0], dtype=source.dtype, device=source.device)
    return following, source
