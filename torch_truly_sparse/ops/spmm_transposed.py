"""Transposed sparse times dense: the input gradient of a truly sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch
from .transpose import TransposedOrder

SCATTER_BATCH: int = operators.scatter_batch()
"""Batches up to this size do not read the transposed order (csrc/bindings/plan.h)."""


def spmm_transposed(
    grad_output: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    in_features: int,
    transposed: TransposedOrder | None = None,
) -> Tensor:
    """Multiply a batch by the transpose of a sparse matrix: `grad_input = grad_output @ W`.

    Args:
        grad_output: (batch, out_features), float32, float64, bfloat16 or float16.
        crow_indices: (out_features + 1,) int64 row pointers of W.
        col_indices: (nnz,) int32 or int64 column of each nonzero of W.
        values: (nnz,) nonzeros of W: float64 with a float64 `grad_output`, float32 with any other.
        in_features: number of columns of W.
        transposed: the same nonzeros by column, from `transpose`, or None. It makes large batches
            faster (about twice); small ones do not read it.

    Returns:
        (batch, in_features) of the dtype of `grad_output`, new memory. Not differentiable: see
        `ops.differentiable`.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O(nnz batch) time; scratch for a few tiles of 32 samples, with the transposed order for
    nnz values, too.
    """
    output: Tensor = operators.spmm_transposed(
        grad_output, crow_indices, col_indices, values, in_features, *(transposed or ())
    )
    return output


@fake("spmm_transposed")
def _spmm_transposed_fake(
    grad_output: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    in_features: int,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    permutation: Tensor | None = None,
) -> Tensor:
    return grad_output.new_empty((grad_output.shape[0], in_features))


@plain_torch("spmm_transposed")
def spmm_transposed_reference(
    grad_output: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    in_features: int,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    permutation: Tensor | None = None,
) -> Tensor:
    """Compute `spmm_transposed` in plain torch, on any device, in O(nnz batch) memory."""
    rows = torch.repeat_interleave(crow_indices.diff(), output_size=values.shape[0])
    products = grad_output[:, rows].to(values.dtype) * values
    grad_input = values.new_zeros((grad_output.shape[0], in_features))
    return grad_input.index_add_(1, col_indices.long(), products).to(grad_output.dtype)
