"""Transposed sparse times dense: the input gradient of a truly sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def spmm_transposed(
    grad_output: Tensor,
    ccol_indices: Tensor,
    row_indices: Tensor,
    permutation: Tensor,
    values: Tensor,
) -> Tensor:
    """Multiply a batch by the transpose of a sparse matrix: `grad_input = grad_output @ W`.

    Args:
        grad_output: (batch, out_features), float32 or float64.
        ccol_indices: (in_features + 1,) int64 column pointers of W.
        row_indices: (nnz,) int32 or int64 row of each nonzero, in the order of the columns.
        permutation: (nnz,) of the dtype of `row_indices`: where `values` holds each of them.
        values: (nnz,) nonzeros of W in row order, of the dtype of `grad_output`.
            The first three come from `transpose`.

    Returns:
        (batch, in_features), new memory. Not differentiable: see `ops.differentiable`.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O(nnz batch) time; scratch of nnz values and a tile of at most 16 out_features values.
    """
    output: Tensor = operators.spmm_transposed(
        grad_output, ccol_indices, row_indices, permutation, values
    )
    return output


@fake("spmm_transposed")
def _spmm_transposed_fake(
    grad_output: Tensor,
    ccol_indices: Tensor,
    row_indices: Tensor,
    permutation: Tensor,
    values: Tensor,
) -> Tensor:
    return grad_output.new_empty((grad_output.shape[0], ccol_indices.shape[0] - 1))


@plain_torch("spmm_transposed")
def spmm_transposed_reference(
    grad_output: Tensor,
    ccol_indices: Tensor,
    row_indices: Tensor,
    permutation: Tensor,
    values: Tensor,
) -> Tensor:
    """Compute `spmm_transposed` in plain torch, on any device, in O(nnz batch) memory."""
    in_features = ccol_indices.shape[0] - 1
    columns = torch.repeat_interleave(ccol_indices.diff(), output_size=values.shape[0])
    products = grad_output[:, row_indices.long()] * values[permutation.long()]
    grad_input = grad_output.new_zeros((grad_output.shape[0], in_features))
    return grad_input.index_add_(1, columns, products)
