"""The rule that differentiates each product, written once; `ops.autograd` runs the rules.

With y = x W^T + b, where W holds `values` at the positions of a topology, the three products are
closed under differentiation: every rule is made of these functions, and gradients of any order
need no further code:

    LINEAR   y = x W^T + b     dx = ADJOINT(dy, W)    dW = SAMPLED(dy, x)    db = SAMPLE_SUM(dy)
    ADJOINT  p = q W           dq = LINEAR(dp, W)     dW = SAMPLED(q, dp)
    SAMPLED  w = (q^T x)|W     dq = LINEAR(x, dw)     dx = ADJOINT(q, dw)

A rule calls these functions through its argument `apply`, which makes each of the calls
differentiable in turn.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._torch_internals import transforms_active
from .column_sum import column_sum
from .csr import CsrParts
from .sddmm import sddmm
from .spmm import spmm
from .spmm_backward import spmm_backward
from .spmm_transposed import spmm_transposed
from .updated_weights import updater_of

Operands = Sequence[Any]  # tensors; a bias may be None
Gradients = tuple[Tensor | None, ...]
Apply = Callable[..., Tensor]
"""`apply(rule, topology, *operands)` computes the function of a rule, differentiably."""


class Rule(ABC):
    """A function of some operands and a topology, and its derivatives.

    Attributes:
        saved: number of leading operands that the derivatives read.
    """

    saved: int = 2

    forward: Callable[..., Tensor]
    """`forward(topology, *operands)` computes the function, by its operator."""

    @abstractmethod
    def backward(
        self, apply: Apply, topology: CsrParts, saved: Operands, wanted: Sequence[bool], g: Tensor
    ) -> Gradients:
        """Return the gradient of each operand, or None for each whose gradient is not wanted.

        Args:
            apply: see `Apply`.
            topology: the topology given to `forward`.
            saved: the first `Rule.saved` operands.
            wanted: whether the gradient of each operand is wanted.
            g: gradient of the result, of the same shape as the result.
        """

    @abstractmethod
    def jvp(
        self, apply: Apply, topology: CsrParts, saved: Operands, tangents: Operands
    ) -> Tensor | None:
        """Return the tangent of the result; None stands for a tangent of zero."""

    def batched(self, in_dims: Sequence[int | None], *operands: Any) -> tuple[Any, ...] | None:
        """Fold the samples of `torch.func.vmap` into one call of the same function, if possible.

        Args:
            in_dims: the dimension of each operand over which it is mapped, or None.
            operands: the operands; one that is not mapped over is the same for every sample.

        Returns:
            The operands of the one call and a function that takes its result apart, or None if
            each sample needs a call of its own.
        """
        return None


class _Linear(Rule):
    """y = x W^T + b."""

    forward = staticmethod(spmm)

    def backward(
        self, apply: Apply, topology: CsrParts, saved: Operands, wanted: Sequence[bool], g: Tensor
    ) -> Gradients:
        input, values = saved
        for_input, for_values, for_bias = wanted
        if for_values and not torch.is_grad_enabled() and not transforms_active():
            # Nothing differentiates this backward pass: one walk over the batch gives all three.
            optimizer = updater_of(values)
            if optimizer is not None:
                others = optimizer.update_in_backward(
                    topology, g, input, values, for_input=for_input, for_bias=for_bias
                )
                return others.grad_input, None, others.grad_bias
            return spmm_backward(topology, g, input, values, for_input=for_input, for_bias=for_bias)
        return (
            apply(ADJOINT, topology, g, values) if for_input else None,
            apply(SAMPLED, topology, g, input) if for_values else None,
            apply(SAMPLE_SUM, topology, g) if for_bias else None,
        )

    def jvp(
        self, apply: Apply, topology: CsrParts, saved: Operands, tangents: Operands
    ) -> Tensor | None:
        (input, values), (d_input, d_values, d_bias) = saved, tangents
        tangent = None
        if d_input is not None:
            tangent = apply(LINEAR, topology, d_input, values, None)
        if d_values is not None:
            tangent = _plus(tangent, apply(LINEAR, topology, input, d_values, None))
        if d_bias is not None:
            rows = d_bias.to(input.dtype).expand(input.shape[0], -1)
            tangent = rows.clone() if tangent is None else tangent + rows
        return tangent

    def batched(self, in_dims: Sequence[int | None], *operands: Any) -> tuple[Any, ...] | None:
        return _one_larger_batch(in_dims, operands)


class _Bilinear(Rule):
    """A function that is linear in each of its two operands."""

    def jvp(
        self, apply: Apply, topology: CsrParts, saved: Operands, tangents: Operands
    ) -> Tensor | None:
        (first, second), (d_first, d_second) = saved, tangents
        tangent = None
        if d_first is not None:
            tangent = apply(self, topology, d_first, second)
        if d_second is not None:
            tangent = _plus(tangent, apply(self, topology, first, d_second))
        return tangent


class _Adjoint(_Bilinear):
    """p = q W."""

    forward = staticmethod(spmm_transposed)

    def backward(
        self, apply: Apply, topology: CsrParts, saved: Operands, wanted: Sequence[bool], g: Tensor
    ) -> Gradients:
        grad_output, values = saved
        for_grad_output, for_values = wanted
        return (
            apply(LINEAR, topology, g, values, None) if for_grad_output else None,
            apply(SAMPLED, topology, grad_output, g) if for_values else None,
        )

    def batched(self, in_dims: Sequence[int | None], *operands: Any) -> tuple[Any, ...] | None:
        return _one_larger_batch(in_dims, operands)


class _Sampled(_Bilinear):
    """w = (q^T x) at the nonzeros."""

    forward = staticmethod(sddmm)

    def backward(
        self, apply: Apply, topology: CsrParts, saved: Operands, wanted: Sequence[bool], g: Tensor
    ) -> Gradients:
        grad_output, input = saved
        for_grad_output, for_input = wanted
        return (
            apply(LINEAR, topology, input, g, None) if for_grad_output else None,
            apply(ADJOINT, topology, grad_output, g) if for_input else None,
        )


class _SampleSum(Rule):
    """b = sum of the samples; the topology is not read."""

    saved = 1

    @staticmethod
    def forward(topology: CsrParts, grad_output: Tensor) -> Tensor:
        return column_sum(grad_output)

    def backward(
        self, apply: Apply, topology: CsrParts, saved: Operands, wanted: Sequence[bool], g: Tensor
    ) -> Gradients:
        (grad_output,) = saved
        return (g.to(grad_output.dtype).expand(grad_output.shape[0], -1),)

    def jvp(
        self, apply: Apply, topology: CsrParts, saved: Operands, tangents: Operands
    ) -> Tensor | None:
        (tangent,) = tangents
        return None if tangent is None else apply(SAMPLE_SUM, topology, tangent)

    def batched(self, in_dims: Sequence[int | None], *operands: Any) -> tuple[Any, ...] | None:
        (grad_output,), (dim,) = operands, in_dims
        beside = grad_output.movedim(dim, 1)  # (batch, sample of vmap, out_features)
        batch, samples, out_features = beside.shape
        folded = beside.reshape(batch, samples * out_features)
        return (folded,), lambda sums: sums.reshape(samples, out_features)


LINEAR, ADJOINT, SAMPLED, SAMPLE_SUM = _Linear(), _Adjoint(), _Sampled(), _SampleSum()


def _plus(tangent: Tensor | None, other: Tensor) -> Tensor:
    return other if tangent is None else tangent + other


def _one_larger_batch(in_dims: Sequence[int | None], operands: Operands) -> tuple[Any, ...] | None:
    """Fold samples that differ in their activations alone into one batch; otherwise give None."""
    if in_dims[0] is None or any(dim is not None for dim in in_dims[1:]):
        return None
    activations = operands[0].movedim(in_dims[0], 0)
    samples, batch, features = activations.shape
    folded = activations.reshape(samples * batch, features)
    return (folded, *operands[1:]), lambda output: output.reshape(samples, batch, output.shape[1])
