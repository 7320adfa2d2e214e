"""All gradients of a truly sparse layer at once."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .._library import operators
from .column_sum import column_sum_reference
from .csr import Csr
from .registration import fake, plain_torch, sum_dtype
from .sddmm import sddmm_reference
from .spmm_transposed import spmm_transposed_reference


class LayerGradients(NamedTuple):
    """What `spmm_backward` returns.

    Attributes:
        grad_input: (batch, in_features), or None if it was not asked for.
        grad_values: (nnz,).
        grad_bias: (out_features,), or None if it was not asked for.
    """

    grad_input: Tensor | None
    grad_values: Tensor
    grad_bias: Tensor | None


def spmm_backward(
    topology: Csr,
    grad_output: Tensor,
    input: Tensor,
    values: Tensor,
    *,
    for_input: bool,
    for_bias: bool,
) -> LayerGradients:
    """Compute the gradients of `output = input @ W.T + bias` in one walk over the batch.

    grad_input = grad_output @ W, grad_values = grad_output.T @ input at the nonzeros of W, and
    grad_bias = grad_output.sum(0). `spmm_transposed`, `sddmm` and `column_sum` compute the same
    gradients one by one, to rounding; here they share the transposed activations.

    Args:
        topology: where W (out_features, in_features) has its nonzeros. Once its order by columns
            has been derived, `grad_input` is faster for batches larger than `SCATTER_BATCH`.
        grad_output: (batch, out_features), float32, float64, bfloat16 or float16.
        input: (batch, in_features) of the same dtype.
        values: (nnz,) nonzeros of W: float64 with float64 activations, float32 with any other.
        for_input: whether `grad_input` is wanted.
        for_bias: whether `grad_bias` is wanted.

    Returns:
        New memory: `grad_input` of the dtype of the activations, the other two of the dtype of
        `values`. This operator is not differentiable; the three single ones are, through
        `ops.autograd.apply`.

    Raises:
        ValueError: shapes or dtypes do not fit, or an index lies outside the matrix.

    Cost: O((nnz + in_features + out_features) batch) time; scratch for a few tiles of activations,
    each of at most 32 samples, and for nnz values where the order by columns is read.
    """
    parts = topology.parts
    grad_input, grad_values, grad_bias = operators.spmm_backward(
        grad_output,
        input,
        parts.row_pointers,
        parts.col_indices,
        values,
        for_input,
        for_bias,
        parts.ccol_indices,
        parts.row_indices,
        parts.permutation,
    )
    return LayerGradients(
        grad_input if for_input else None, grad_values, grad_bias if for_bias else None
    )


@fake("spmm_backward")
def _spmm_backward_fake(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    for_input: bool,
    for_bias: bool,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    permutation: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = sum_dtype(grad_output)
    batch, in_features = input.shape
    return (
        input.new_empty((batch if for_input else 0, in_features)),
        input.new_empty(values.shape, dtype=dtype),
        input.new_empty((grad_output.shape[1] if for_bias else 0,), dtype=dtype),
    )


@plain_torch("spmm_backward")
def spmm_backward_reference(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    for_input: bool,
    for_bias: bool,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    permutation: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `spmm_backward` in plain torch, on any device, in O(nnz batch) memory."""
    grad_input, grad_values, grad_bias = _spmm_backward_fake(
        grad_output, input, crow_indices, col_indices, values, for_input, for_bias
    )
    if for_input:
        grad_input = spmm_transposed_reference(
            grad_output, crow_indices, col_indices, values, input.shape[1]
        )
    grad_values = sddmm_reference(grad_output, input, crow_indices, col_indices)
    if for_bias:
        grad_bias = column_sum_reference(grad_output)
    return grad_input, grad_values, grad_bias
