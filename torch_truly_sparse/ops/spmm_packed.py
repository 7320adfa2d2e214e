"""The forward product of a matrix that is packed for inference."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch, sum_dtype

PLAIN_CODES = 1 << 16
"""Up to this many columns, codes are columns; beyond it, gaps (`csrc/kernels/views.h`)."""

SKIP_CODE = 0xFFFF
"""As a gap: so many columns without a connection."""


def spmm_packed(
    input: Tensor,
    crow_indices: Tensor,
    codes: Tensor,
    values: Tensor,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply a batch by a packed matrix: `output = input @ W.T + bias`.

    Args:
        input: (batch, in_features), float32, bfloat16 or float16; made contiguous if it is not.
        crow_indices: (out_features + 1,) int64: entries [crow_indices[r], crow_indices[r + 1])
            belong to row r.
        codes: (entries,) int16, read as unsigned. With up to 65,536 input units the column of each
            entry. With more the distance from the column of the entry before it in its row, or from
            column 0; 65,535 stands for so many columns without a connection, and its value is not
            read.
        values: (entries,) float32, bfloat16 or int8.
        scales: (out_features,) float32 that the values of each row are multiplied with, or None.
        bias: (out_features,) float32, or None.

    Returns:
        (batch, out_features) of the dtype of `input`, new memory; sums are made in float32. There
        is no gradient.

    Raises:
        ValueError: shapes or dtypes do not fit, or a code leads out of the matrix.

    Cost: O((entries + in_features + out_features) batch) time; scratch as `spmm`.
    """
    output: Tensor = operators.spmm_packed(input, crow_indices, codes, values, scales, bias)
    return output


def packed_columns(
    crow_indices: Tensor, codes: Tensor, in_features: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return row and column of each entry, (entries,) int64, and which entries are connections.

    The last is (entries,) bool, or None where all are. Nothing is checked but what torch checks.
    """
    rows = torch.repeat_interleave(crow_indices.diff(), output_size=codes.shape[0])
    steps = codes.long() & SKIP_CODE
    if in_features <= PLAIN_CODES:
        return rows, steps, None
    sums = steps.cumsum(0)
    before = torch.cat([sums.new_zeros(1), sums])[crow_indices[:-1]]
    return rows, sums - before[rows], steps != SKIP_CODE


@fake("spmm_packed")
def _spmm_packed_fake(
    input: Tensor,
    crow_indices: Tensor,
    codes: Tensor,
    values: Tensor,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    return input.new_empty((input.shape[0], crow_indices.shape[0] - 1))


@plain_torch("spmm_packed")
def spmm_packed_reference(
    input: Tensor,
    crow_indices: Tensor,
    codes: Tensor,
    values: Tensor,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Compute `spmm_packed` in plain torch, on any device, in O(entries batch) memory."""
    rows, columns, real = packed_columns(crow_indices, codes, input.shape[1])
    values = values.to(sum_dtype(input))
    if real is not None:
        rows, columns, values = rows[real], columns[real], values[real]
    products = input[:, columns].to(values.dtype) * values
    output = values.new_zeros((input.shape[0], crow_indices.shape[0] - 1))
    output = output.index_add_(1, rows, products)
    if scales is not None:
        output = output * scales
    return (output if bias is None else output + bias).to(input.dtype)
