"""The rules of `gradients` as autograd functions: `apply` is the way to a differentiable product.

Two thin forms run the same rules. Eager training, and what is compiled, take `_Eager`. Where a
`torch.func` transform (`grad`, `vmap`, `jvp`, ...) or a level of forward mode is active, torch asks
for a function with `setup_context`, which costs more for each call: `_Transformed`.

Both forms save operands and topology for the backward pass as tensors (`CsrParts`), so that torch
notices when one of these tensors was changed in place since the forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._torch_internals import transforms_active
from .csr import Csr, CsrParts
from .gradients import Rule


def apply(rule: Rule, topology: Csr, *operands: Tensor | None) -> Tensor:
    """Compute the function of a rule, differentiable to any order in each of its operands.

    Args:
        rule: `gradients.LINEAR`, `ADJOINT`, `SAMPLED` or `SAMPLE_SUM`.
        topology: where the sparse matrix has its nonzeros; no gradient flows to the topology.
        operands: the arguments of the rule's operator, in the order of that operator.

    Returns:
        New memory. Shapes, dtypes, errors and cost are those of the operator.
    """
    parts = topology.parts
    if transforms_active():
        form: type[torch.autograd.Function] = _Transformed
    elif torch.is_grad_enabled():
        form = _Eager
    else:
        return rule.forward(parts, *operands)
    output: Tensor = form.apply(rule, parts, *operands)
    return output


class _Eager(torch.autograd.Function):
    """A rule in the form that costs the least for each call."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, topology: CsrParts, *operands: Any) -> Tensor:
        _keep(ctx, rule, topology, operands)
        return rule.forward(topology, *operands)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, g)


class _Transformed(torch.autograd.Function):
    """A rule in the form that `torch.func` and forward mode take."""

    @staticmethod
    def forward(rule: Rule, topology: CsrParts, *operands: Any) -> Tensor:
        return rule.forward(topology, *operands)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        rule, topology, *operands = inputs
        _keep(ctx, rule, topology, operands)
        ctx.save_for_forward(*ctx.to_save)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return (None,) * len(ctx.needs_input_grad)
        return _backward(ctx, g)

    @staticmethod
    def jvp(ctx: Any, _: None, __: Any, *tangents: Tensor | None) -> Tensor | None:
        saved, topology = _kept(ctx)
        tangent: Tensor | None = ctx.rule.jvp(apply, topology, saved, tangents)
        return tangent

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], rule: Rule, topology: CsrParts, *operands: Any
    ) -> tuple[Tensor, int]:
        """Map over samples by one call on a larger batch if possible, otherwise by a call for each.

        A larger batch serves samples that differ in their activations alone. Samples that also
        differ in values, in the topology or in a gradient of the values share no work, so that each
        of them takes a call of its own.
        """
        _, topology_dims, *dims = in_dims
        if topology_dims is None or all(dim is None for dim in topology_dims):
            folded = rule.batched(dims, *operands)
            if folded is not None:
                larger, unfold = folded
                return unfold(apply(rule, topology, *larger)), 0
        if info.batch_size == 0:
            raise ValueError("torch.func.vmap: no samples to compute the values or gradients of")

        def sample(i: int) -> Tensor:
            return apply(
                rule,
                CsrParts(*_at(topology, topology_dims or (None,) * len(topology), i)),
                *_at(operands, dims, i),
            )

        return torch.stack([sample(i) for i in range(info.batch_size)]), 0


def _at(batched: Iterable[Any], dims: Iterable[int | None], i: int) -> list[Any]:
    """Return sample i of each mapped argument (`dim` given), and any other argument as it is."""
    return [b if dim is None else b.select(dim, i) for b, dim in zip(batched, dims, strict=True)]


def _keep(ctx: Any, rule: Rule, topology: CsrParts, operands: Sequence[Any]) -> None:
    """Save the operands that the derivatives read, and the topology."""
    row_pointers, col_indices, ctx.in_features, *transposed = topology
    ctx.rule = rule
    ctx.save_for_backward(*operands[: rule.saved], row_pointers, col_indices, *transposed)


def _kept(ctx: Any) -> tuple[tuple[Tensor, ...], CsrParts]:
    """Return the operands and the topology that `_keep` saved."""
    *saved, row_pointers, col_indices, ccol, row, permutation = ctx.saved_tensors
    return saved, CsrParts(row_pointers, col_indices, ctx.in_features, ccol, row, permutation)


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    saved, topology = _kept(ctx)
    wanted = ctx.needs_input_grad[2:]
    return None, None, *ctx.rule.backward(apply, topology, saved, wanted, g)
