"""The gradients of the three products in the form that `torch.func` and forward mode take.

The same mathematics as in `differentiable`, which calls this module where a transform is active
(`torch.func.grad`, `vmap`, `jvp`, ...) or a level of forward-mode differentiation is open. Eager
training does not pass here: a function with `setup_context` costs it more for each call.

Under `vmap`

- activations that are batched in a product with one matrix are one larger batch: one product;
- what differs from sample to sample otherwise (values, a topology, a gradient of the values) is
  computed one sample after the other: nothing is saved by anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .column_sum import column_sum as _column_sum
from .orders import ORDERS, Orders, flatten, keep, kept
from .sddmm import sddmm as _sddmm
from .spmm import spmm as _spmm
from .spmm_transposed import spmm_transposed as _spmm_transposed
from .transpose import TransposedOrder


def active() -> bool:
    """Tell whether a transform or a level of forward mode sees the operators that run now."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def spmm(input: Tensor, values: Tensor, bias: Tensor | None, orders: Orders) -> Tensor:
    """Compute `input @ W.T + bias`, as `differentiable.spmm` does."""
    output: Tensor = _Spmm.apply(input, values, bias, *flatten(orders))  # type: ignore[no-untyped-call]
    return output


def spmm_transposed(grad_output: Tensor, values: Tensor, orders: Orders) -> Tensor:
    """Compute `grad_output @ W`, as `differentiable.spmm_transposed` does."""
    output: Tensor = _SpmmTransposed.apply(grad_output, values, *flatten(orders))  # type: ignore[no-untyped-call]
    return output


def sddmm(grad_output: Tensor, input: Tensor, orders: Orders) -> Tensor:
    """Compute `grad_output.T @ input` at the nonzeros, as `differentiable.sddmm` does."""
    output: Tensor = _Sddmm.apply(grad_output, input, *flatten(orders))  # type: ignore[no-untyped-call]
    return output


def column_sum(grad_output: Tensor) -> Tensor:
    """Compute `grad_output.sum(0)`, as `differentiable.column_sum` does."""
    output: Tensor = _ColumnSum.apply(grad_output)  # type: ignore[no-untyped-call]
    return output


class _Product(torch.autograd.Function):
    """What the three products share: two operands, then what is constant."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        keep(ctx, inputs[:2], inputs[-ORDERS:])
        ctx.save_for_forward(*ctx.to_save)
        ctx.set_materialize_grads(False)


class _Spmm(_Product):
    @staticmethod
    def forward(input: Tensor, values: Tensor, bias: Tensor | None, *orders: Any) -> Tensor:
        return _spmm(input, orders[0], orders[1], values, bias)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor | None) -> tuple[Tensor | None, ...]:
        (input, values), orders = kept(ctx)
        if grad_output is None:
            return (None,) * (3 + ORDERS)
        for_input, for_values, for_bias = ctx.needs_input_grad[:3]
        return (
            spmm_transposed(grad_output, values, orders) if for_input else None,
            sddmm(grad_output, input, orders) if for_values else None,
            column_sum(grad_output) if for_bias else None,
            *(None,) * ORDERS,
        )

    @staticmethod
    def jvp(
        ctx: Any,
        input_tangent: Tensor | None,
        values_tangent: Tensor | None,
        bias_tangent: Tensor | None,
        *_: None,
    ) -> Tensor | None:
        (input, values), orders = kept(ctx)
        tangent = None
        if input_tangent is not None:
            tangent = spmm(input_tangent, values, None, orders)
        if values_tangent is not None:
            tangent = _plus(tangent, spmm(input, values_tangent, None, orders))
        if bias_tangent is not None:
            rows = bias_tangent.to(input.dtype).expand(input.shape[0], -1)
            tangent = rows.clone() if tangent is None else tangent + rows
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> tuple[Tensor, int]:
        if _only_first(in_dims):
            return _as_one_batch(_Spmm, info, in_dims, operands)
        return _one_by_one(_Spmm, info, in_dims, operands)


class _SpmmTransposed(_Product):
    @staticmethod
    def forward(grad_output: Tensor, values: Tensor, *orders: Any) -> Tensor:
        crow_indices, col_indices, in_features, *transposed = orders
        order = None if transposed[0] is None else TransposedOrder(*transposed)
        return _spmm_transposed(grad_output, crow_indices, col_indices, values, in_features, order)

    @staticmethod
    def backward(ctx: Any, outer: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad_output, values), orders = kept(ctx)
        if outer is None:
            return (None,) * (2 + ORDERS)
        for_grad_output, for_values = ctx.needs_input_grad[:2]
        return (
            spmm(outer, values, None, orders) if for_grad_output else None,
            sddmm(grad_output, outer, orders) if for_values else None,
            *(None,) * ORDERS,
        )

    @staticmethod
    def jvp(
        ctx: Any, grad_output_tangent: Tensor | None, values_tangent: Tensor | None, *_: None
    ) -> Tensor | None:
        (grad_output, values), orders = kept(ctx)
        tangent = None
        if grad_output_tangent is not None:
            tangent = spmm_transposed(grad_output_tangent, values, orders)
        if values_tangent is not None:
            tangent = _plus(tangent, spmm_transposed(grad_output, values_tangent, orders))
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> tuple[Tensor, int]:
        if _only_first(in_dims):
            return _as_one_batch(_SpmmTransposed, info, in_dims, operands)
        return _one_by_one(_SpmmTransposed, info, in_dims, operands)


class _Sddmm(_Product):
    @staticmethod
    def forward(grad_output: Tensor, input: Tensor, *orders: Any) -> Tensor:
        return _sddmm(grad_output, input, orders[0], orders[1])

    @staticmethod
    def backward(ctx: Any, outer: Tensor | None) -> tuple[Tensor | None, ...]:
        (grad_output, input), orders = kept(ctx)
        if outer is None:
            return (None,) * (2 + ORDERS)
        for_grad_output, for_input = ctx.needs_input_grad[:2]
        return (
            spmm(input, outer, None, orders) if for_grad_output else None,
            spmm_transposed(grad_output, outer, orders) if for_input else None,
            *(None,) * ORDERS,
        )

    @staticmethod
    def jvp(
        ctx: Any, grad_output_tangent: Tensor | None, input_tangent: Tensor | None, *_: None
    ) -> Tensor | None:
        (grad_output, input), orders = kept(ctx)
        tangent = None
        if grad_output_tangent is not None:
            tangent = sddmm(grad_output_tangent, input, orders)
        if input_tangent is not None:
            tangent = _plus(tangent, sddmm(grad_output, input_tangent, orders))
        return tangent

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *operands: Any) -> tuple[Tensor, int]:
        return _one_by_one(_Sddmm, info, in_dims, operands)


class _ColumnSum(torch.autograd.Function):
    @staticmethod
    def forward(grad_output: Tensor) -> Tensor:
        return _column_sum(grad_output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.batch, ctx.dtype = inputs[0].shape[0], inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        return outer.to(ctx.dtype).expand(ctx.batch, -1)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return column_sum(tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int], grad_output: Tensor) -> tuple[Tensor, int]:
        samples_last = grad_output.movedim(in_dims[0], 1)  # (batch, sample of vmap, out_features)
        batch, samples, out_features = samples_last.shape
        sums = column_sum(samples_last.reshape(batch, samples * out_features))
        return sums.reshape(samples, out_features), 0


def _plus(tangent: Tensor | None, other: Tensor) -> Tensor:
    return other if tangent is None else tangent + other


def _only_first(in_dims: tuple[int | None, ...]) -> bool:
    return in_dims[0] is not None and all(dim is None for dim in in_dims[1:])


def _as_one_batch(
    product: type[_Product], info: Any, in_dims: tuple[int | None, ...], operands: tuple[Any, ...]
) -> tuple[Tensor, int]:
    activations = operands[0].movedim(in_dims[0], 0)
    samples, batch, features = activations.shape
    folded = activations.reshape(samples * batch, features)
    output: Tensor = product.apply(folded, *operands[1:])  # type: ignore[no-untyped-call]
    return output.reshape(samples, batch, output.shape[1]), 0


def _one_by_one(
    product: type[_Product], info: Any, in_dims: tuple[int | None, ...], operands: tuple[Any, ...]
) -> tuple[Tensor, int]:
    if info.batch_size == 0:
        raise ValueError("torch.func.vmap: no samples to compute the values or gradients of")
    apply: Callable[..., Tensor] = product.apply

    def sample(i: int) -> Tensor:
        pairs = zip(operands, in_dims, strict=True)
        return apply(*(o if dim is None else o.select(dim, i) for o, dim in pairs))

    return torch.stack([sample(i) for i in range(info.batch_size)]), 0
