"""Sparse times dense: the forward product of a truly sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def spmm(
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply a batch by a sparse matrix: `output = input @ W.T + bias`.

    Args:
        input: (batch, in_features), float32 or float64; made contiguous if it is not.
        crow_indices: (out_features + 1,) int64 row pointers of W.
        col_indices: (nnz,) int32 or int64 column of each nonzero of W.
        values: (nnz,) nonzeros of W, of the dtype of `input`.
        bias: (out_features,) of the dtype of `input`, or None.

    Returns:
        (batch, out_features), new memory. Not differentiable: see `ops.differentiable`.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O(nnz batch) time; a scratch tile of at most 16 in_features values.
    """
    output: Tensor = operators.spmm(input, crow_indices, col_indices, values, bias)
    return output


@fake("spmm")
def _spmm_fake(
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    return input.new_empty((input.shape[0], crow_indices.shape[0] - 1))


@plain_torch("spmm")
def spmm_reference(
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute `spmm` in plain torch, on any device, in O(nnz batch) memory."""
    out_features = crow_indices.shape[0] - 1
    rows = torch.repeat_interleave(crow_indices.diff(), output_size=values.shape[0])
    products = input[:, col_indices.long()] * values
    output = input.new_zeros((input.shape[0], out_features)).index_add_(1, rows, products)
    return output if bias is None else output + bias
