"""Sampled dense-dense product: the gradient of the nonzero weights alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .csr import Csr
from .registration import fake, plain_torch, sum_dtype


def sddmm(topology: Csr, grad_output: Tensor, input: Tensor) -> Tensor:
    """Compute `grad_output.T @ input` at the nonzeros of a sparse matrix only.

    `grad_values[k] = sum over samples s of grad_output[s, row[k]] * input[s, col[k]]`

    Args:
        topology: where the sparse matrix (out_features, in_features) has its nonzeros.
        grad_output: (batch, out_features), float32, float64, bfloat16 or float16.
        input: (batch, in_features) of the same dtype.

    Returns:
        (nnz,), new memory: float64 for float64 activations, float32 for any other; products are
        summed in this dtype. The operator itself is not differentiable; `ops.autograd.apply` makes
        it so.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O((nnz + in_features + out_features) batch) time; scratch for a few tiles of activations,
    as in `spmm`.
    """
    parts = topology.parts
    output: Tensor = operators.sddmm(grad_output, input, parts.row_pointers, parts.col_indices)
    return output


@fake("sddmm")
def _sddmm_fake(
    grad_output: Tensor, input: Tensor, crow_indices: Tensor, col_indices: Tensor
) -> Tensor:
    return input.new_empty((col_indices.shape[0],), dtype=sum_dtype(input))


@plain_torch("sddmm")
def sddmm_reference(
    grad_output: Tensor, input: Tensor, crow_indices: Tensor, col_indices: Tensor
) -> Tensor:
    """Compute `sddmm` in plain torch, on any device, in O(nnz batch) memory."""
    rows = torch.repeat_interleave(crow_indices.diff(), output_size=col_indices.shape[0])
    dtype = sum_dtype(input)
    grad_output, input = grad_output.to(dtype), input.to(dtype)
    return (grad_output[:, rows] * input[:, col_indices.long()]).sum(0)
