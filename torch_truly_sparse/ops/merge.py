"""The next topology, from the present one, what is dropped of it, and what regrows."""

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
    """Put the survivors of a topology and regrown connections into one sorted order.

    Args:
        indices: (2, nnz) int32 or int64, the present topology, sorted and unique.
        dropped: (nnz,) bool, those that go.
        regrown: (m,) int64 positions (`out * in_features + in`), increasing, none of a survivor.
        survivors: how many are not dropped.
        shape: (out_features, in_features).
        dtype: of the results, int32 or int64; it must hold the sizes and the counts.

    Returns:
        The next indices (2, survivors + m), sorted and unique, and where each connection comes
        from: the number of one of `indices`, or ~g (-1 - g) for the regrown one number g. Both of
        `dtype`, new memory.

    Raises:
        ValueError: the regrown positions are not as asked, the present topology is none, or
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
    before = torch.searchsorted(kept, regrown)  # survivors that come before each
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
