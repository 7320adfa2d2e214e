"""The order by columns of the nonzeros of a topology."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .csr import Csr, TransposedOrder
from .registration import fake, plain_torch


def transpose(topology: Csr) -> TransposedOrder:
    """Sort the nonzeros of a topology by column, then row.

    Args:
        topology: the nonzeros in compressed rows.

    Returns:
        The order by columns, new memory: int64 column pointers, and row indices and permutation of
        the dtype of the topology's columns.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O(nnz + out_features + in_features), a counting sort on one thread.
    """
    parts = topology.parts
    return TransposedOrder(
        *operators.transpose(parts.row_pointers, parts.col_indices, parts.in_features)
    )


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
