"""Sparse times dense: the forward product of a truly sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .csr import Csr
from .registration import fake, plain_torch


def spmm(topology: Csr, input: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply a batch by a sparse matrix: `output = input @ W.T + bias`.

    Args:
        topology: where W (out_features, in_features) has its nonzeros.
        input: (batch, in_features), float32, float64, bfloat16 or float16; made contiguous if it
            is not.
        values: (nnz,) nonzeros of W: float64 with a float64 input, float32 with any other. Products
            are summed in the dtype of `values`.
        bias: (out_features,) of the dtype of `values`, or None.

    Returns:
        (batch, out_features) of the dtype of `input`, new memory. The operator itself is not
        differentiable; `ops.autograd.apply` makes it so.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O((nnz + in_features + out_features) batch) time; scratch for a few tiles of activations,
    each of at most 32 samples.
    """
    parts = topology.parts
    output: Tensor = operators.spmm(input, parts.row_pointers, parts.col_indices, values, bias)
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
    products = input[:, col_indices.long()].to(values.dtype) * values
    output = values.new_zeros((input.shape[0], out_features)).index_add_(1, rows, products)
    return (output if bias is None else output + bias).to(input.dtype)
