"""Transposed sparse times dense: the input gradient of a truly sparse layer."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .csr import Csr
from .registration import fake, plain_torch

SCATTER_BATCH: int = operators.scatter_batch()
"""The largest batch that does not read the order by columns (csrc/bindings/plan.h)."""


def spmm_transposed(topology: Csr, grad_output: Tensor, values: Tensor) -> Tensor:
    """Multiply a batch by the transpose of a sparse matrix: `grad_input = grad_output @ W`.

    Args:
        topology: where W (out_features, in_features) has its nonzeros. Once its order by columns
            has been derived, batches larger than `SCATTER_BATCH` are about twice as fast.
        grad_output: (batch, out_features), float32, float64, bfloat16 or float16.
        values: (nnz,) nonzeros of W: float64 with a float64 `grad_output`, float32 with any other.

    Returns:
        (batch, in_features) of the dtype of `grad_output`, new memory. The operator itself is not
        differentiable; `ops.autograd.apply` makes it so.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O((nnz + in_features + out_features) batch) time; scratch for a few tiles of activations,
    each of at most 32 samples, and for nnz values where the order by columns is read.
    """
    parts = topology.parts
    output: Tensor = operators.spmm_transposed(
        grad_output,
        parts.row_pointers,
        parts.col_indices,
        values,
        parts.in_features,
        parts.ccol_indices,
        parts.row_indices,
        parts.permutation,
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
