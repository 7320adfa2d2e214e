"""What the products cost, for `torch.utils.flop_counter.FlopCounterMode`.

torch counts a multiplication and an addition as two operations, and nothing but products; so does
this. A sparse layer costs 2 batch nnz for its output, and as much for each of the two gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from .. import _library  # noqa: F401  (the operators must exist)

operators = torch.ops.torch_truly_sparse  # torch knows the formulas by these objects

Size = Sequence[int]


@register_flop_formula(operators.spmm)
def _spmm(input: Size, crow_indices: Size, col_indices: Size, *_: Any, **__: Any) -> int:
    return 2 * input[0] * col_indices[0]


@register_flop_formula(operators.spmm_packed)
def _packed(input: Size, crow_indices: Size, codes: Size, *_: Any, **__: Any) -> int:
    return 2 * input[0] * codes[0]


@register_flop_formula(operators.spmm_transposed)
def _transposed(
    grad_output: Size, crow_indices: Size, col_indices: Size, *_: Any, **__: Any
) -> int:
    return 2 * grad_output[0] * col_indices[0]


@register_flop_formula(operators.sddmm)
def _sddmm(
    grad_output: Size, input: Size, crow_indices: Size, col_indices: Size, *_: Any, **__: Any
) -> int:
    return 2 * grad_output[0] * col_indices[0]


@register_flop_formula([operators.spmm_backward_sgd, operators.spmm_backward_adamw])
def _updating(grad_output: Size, input: Size, *rest: Any, out_shape: Any, **__: Any) -> int:
    col_indices, for_input = rest[1], next(each for each in rest if isinstance(each, bool))
    return 2 * int(grad_output[0]) * int(col_indices[0]) * (2 if for_input else 1)


@register_flop_formula(operators.spmm_backward)
def _backward(
    grad_output: Size,
    input: Size,
    crow_indices: Size,
    col_indices: Size,
    values: Size,
    for_input: bool,
    *_: Any,
    **__: Any,
) -> int:
    return 2 * grad_output[0] * col_indices[0] * (2 if for_input else 1)
