"""From sorted coordinates to row pointers, with every check that a topology needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch, vmap_rule


def compress(indices: Tensor, shape: tuple[int, int]) -> Tensor:
    """Check the coordinates of a topology and derive its row pointers.

    Args:
        indices: (2, nnz) int32 or int64. Row 0 holds output units, row 1 input units; sorted by
            output unit, then input unit; unique.
        shape: (out_features, in_features).

    Returns:
        (out_features + 1,) int64 row pointers, new memory.

    Raises:
        ValueError: `indices` are out of range, unsorted or not unique (the text names the first
            such entry), or have another shape or dtype, or a size is negative.

    Cost: O(nnz + out_features).
    """
    output: Tensor = operators.compress(indices, *shape)
    return output


@fake("compress")
def _compress_fake(indices: Tensor, out_features: int, in_features: int) -> Tensor:
    return indices.new_empty((out_features + 1,), dtype=torch.int64)


@vmap_rule("compress")
def _compress_vmap(
    info: Any, in_dims: tuple[int, None, None], indices: Tensor, out_features: int, in_features: int
) -> tuple[Tensor, int]:
    topologies = indices.unbind(in_dims[0])
    return torch.stack([compress(t, (out_features, in_features)) for t in topologies]), 0


@plain_torch("compress")
def compress_reference(indices: Tensor, out_features: int, in_features: int) -> Tensor:
    """Compute `compress` in plain torch, on any device."""
    rows, columns = indices.long()
    if indices.shape[1]:
        if rows.min() < 0 or rows.max() >= out_features:
            raise ValueError(f"`indices[0]` must lie in [0, out_features) = [0, {out_features})")
        if columns.min() < 0 or columns.max() >= in_features:
            raise ValueError(f"`indices[1]` must lie in [0, in_features) = [0, {in_features})")
        if (rows * in_features + columns).diff().le(0).any():
            raise ValueError("`indices` must be sorted by output unit, then input unit, and unique")
    counts = torch.bincount(rows, minlength=out_features)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def compress_again(indices: Tensor, row_pointers: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the row pointers of a topology, which are known already unless it has changed.

    Args:
        indices: (2, nnz) as for `compress`.
        row_pointers: (out_features + 1,) int64, what `compress` returned for these indices, or for
            others.
        shape: (out_features, in_features).

    Returns:
        (out_features + 1,) int64 row pointers of `indices`, new memory.

    Raises:
        ValueError: a size does not fit; or `row_pointers` are not those of `indices`, and these
            are not a topology. Where they are, nothing but the ends of the rows is looked at.

    Cost: O(out_features) where they are those of `indices`, otherwise that of `compress`.
    """
    output: Tensor = operators.compress_again(indices, row_pointers, *shape)
    return output


@fake("compress_again")
def _compress_again_fake(
    indices: Tensor, row_pointers: Tensor, out_features: int, in_features: int
) -> Tensor:
    return indices.new_empty((out_features + 1,), dtype=torch.int64)


@plain_torch("compress_again")
def compress_again_reference(
    indices: Tensor, row_pointers: Tensor, out_features: int, in_features: int
) -> Tensor:
    """Compute `compress_again` in plain torch, on any device."""
    return compress_reference(indices, out_features, in_features)
