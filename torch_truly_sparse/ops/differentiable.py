"""Hand-written gradients of the three products, to any order.

With y = x W^T + b, where W holds `values` at fixed positions, the three products are closed under
differentiation, so each backward pass is written with the functions of this module:

    spmm             y = x W^T + b    dx = spmm_transposed(dy, W)   dW = sddmm(dy, x)
    spmm_transposed  p = q W          dq = spmm(dp, W)              dW = sddmm(q, dp)
    sddmm            w = (q^T x)|W    dq = spmm(x, dw)              dx = spmm_transposed(q, dw)

Under `torch.func` and in forward mode the functions of `transforms` take over.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from . import transforms
from .column_sum import column_sum as _column_sum
from .orders import ORDERS, flatten, keep, kept
from .orders import Orders as Orders
from .sddmm import sddmm as _sddmm
from .spmm import spmm as _spmm
from .spmm_backward import spmm_backward as _spmm_backward
from .spmm_transposed import spmm_transposed as _spmm_transposed
from .transpose import TransposedOrder


def spmm(input: Tensor, values: Tensor, bias: Tensor | None, orders: Orders) -> Tensor:
    """Compute `input @ W.T + bias`, differentiable in `input`, `values` and `bias`.

    Shapes, dtypes, errors and cost as in `ops.spmm`.
    """
    if transforms.active():
        return transforms.spmm(input, values, bias, orders)
    if torch.is_grad_enabled():
        output: Tensor = _Spmm.apply(input, values, bias, *flatten(orders))  # type: ignore[no-untyped-call]
        return output
    return _spmm(input, orders.crow_indices, orders.col_indices, values, bias)


def spmm_transposed(grad_output: Tensor, values: Tensor, orders: Orders) -> Tensor:
    """Compute `grad_output @ W`, differentiable in both arguments.

    Shapes, dtypes, errors and cost as in `ops.spmm_transposed`.
    """
    if transforms.active():
        return transforms.spmm_transposed(grad_output, values, orders)
    if torch.is_grad_enabled():
        output: Tensor = _SpmmTransposed.apply(grad_output, values, *flatten(orders))  # type: ignore[no-untyped-call]
        return output
    crow_indices, col_indices, in_features, transposed = orders
    return _spmm_transposed(grad_output, crow_indices, col_indices, values, in_features, transposed)


def sddmm(grad_output: Tensor, input: Tensor, orders: Orders) -> Tensor:
    """Compute `grad_output.T @ input` at the nonzeros, differentiable in both arguments.

    Shapes, dtypes, errors and cost as in `ops.sddmm`.
    """
    if transforms.active():
        return transforms.sddmm(grad_output, input, orders)
    if torch.is_grad_enabled():
        output: Tensor = _Sddmm.apply(grad_output, input, *flatten(orders))  # type: ignore[no-untyped-call]
        return output
    return _sddmm(grad_output, input, orders.crow_indices, orders.col_indices)


def column_sum(grad_output: Tensor) -> Tensor:
    """Compute `grad_output.sum(0)`, differentiable. As `ops.column_sum` otherwise."""
    if transforms.active():
        return transforms.column_sum(grad_output)
    if torch.is_grad_enabled():
        output: Tensor = _ColumnSum.apply(grad_output)  # type: ignore[no-untyped-call]
        return output
    return _column_sum(grad_output)


class _Spmm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, input: Tensor, values: Tensor, bias: Tensor | None, *orders: Any
    ) -> Tensor:
        keep(ctx, (input, values), orders)
        return _spmm(input, orders[0], orders[1], values, bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (input, values), orders = kept(ctx)
        for_input, for_values, for_bias = ctx.needs_input_grad[:3]
        if for_values and not torch.is_grad_enabled() and not transforms.active():
            crow_indices, col_indices, _, transposed = orders
            return (
                *_spmm_backward(
                    grad_output,
                    input,
                    crow_indices,
                    col_indices,
                    values,
                    transposed,
                    for_input=for_input,
                    for_bias=for_bias,
                ),
                *(None,) * ORDERS,
            )
        return (
            spmm_transposed(grad_output, values, orders) if for_input else None,
            sddmm(grad_output, input, orders) if for_values else None,
            column_sum(grad_output) if for_bias else None,
            *(None,) * ORDERS,
        )


class _SpmmTransposed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, grad_output: Tensor, values: Tensor, *orders: Any) -> Tensor:
        keep(ctx, (grad_output, values), orders)
        crow_indices, col_indices, in_features, *transposed = orders
        order = None if transposed[0] is None else TransposedOrder(*transposed)
        return _spmm_transposed(grad_output, crow_indices, col_indices, values, in_features, order)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output, values), orders = kept(ctx)
        for_grad_output, for_values = ctx.needs_input_grad[:2]
        return (
            spmm(outer, values, None, orders) if for_grad_output else None,
            sddmm(grad_output, outer, orders) if for_values else None,
            *(None,) * ORDERS,
        )


class _Sddmm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, grad_output: Tensor, input: Tensor, *orders: Any) -> Tensor:
        keep(ctx, (grad_output, input), orders)
        return _sddmm(grad_output, input, orders[0], orders[1])

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (grad_output, input), orders = kept(ctx)
        for_grad_output, for_input = ctx.needs_input_grad[:2]
        return (
            spmm(input, outer, None, orders) if for_grad_output else None,
            spmm_transposed(grad_output, outer, orders) if for_input else None,
            *(None,) * ORDERS,
        )


class _ColumnSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad_output: Tensor) -> Tensor:
        ctx.batch, ctx.dtype = grad_output.shape[0], grad_output.dtype
        return _column_sum(grad_output)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        return outer.to(ctx.dtype).expand(ctx.batch, -1)
