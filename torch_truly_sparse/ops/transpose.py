"""The order of the nonzeros by input unit."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


class TransposedOrder(NamedTuple):
    """The nonzeros of a matrix in the order of its columns.

    Attributes:
        ccol_indices: (in_features + 1,) int64 column pointers.
        row_indices: (nnz,) row of each nonzero, sorted by (column, row).
        permutation: (nnz,) where the row order holds each of them.
    """

    ccol_indices: Tensor
    row_indices: Tensor
    permutation: Tensor


def transpose(crow_indices: Tensor, col_indices: Tensor, in_features: int) -> TransposedOrder:
    """Sort the nonzeros by column.

    Args:
        crow_indices: (out_features + 1,) int64 row pointers.
        col_indices: (nnz,) int32 or int64, in [0, in_features).
        in_features: number of columns.

    Returns:
        The transposed order, new memory; its indices have the dtype of `col_indices`.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O(nnz + out_features + in_features), a counting sort.
    """
    return TransposedOrder(*operators.transpose(crow_indices, col_indices, in_features))


@fake("transpose")
def _transpose_fake(
    crow_indices: Tensor, col_indices: Tensor, in_features: int
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        crow_indices.new_empty((in_features + 1,)),
        torch.empty_like(col_indices),
        torch.empty_like(col_indices),
    )


@plain_torch("transpose")
def transpose_reference(
    crow_indices: Tensor, col_indices: Tensor, in_features: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `transpose` in plain torch, on any device."""
    columns = col_indices.long()
    counts = torch.bincount(columns, minlength=in_features)
    permutation = torch.argsort(columns, stable=True)
    rows = torch.repeat_interleave(crow_indices.diff(), output_size=columns.shape[0])
    return (
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        rows[permutation].to(col_indices.dtype),
        permutation.to(col_indices.dtype),
    )
