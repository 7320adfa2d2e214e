"""The gradients of a layer, whose weights are changed as soon as their gradient is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._library import operators
from .csr import Csr
from .registration import fake, plain_torch, sum_dtype
from .spmm_backward import spmm_backward_reference


class OtherGradients(NamedTuple):
    """What `spmm_backward_sgd` and `spmm_backward_adamw` return.

    Attributes:
        grad_input: (batch, in_features), or None if it was not asked for.
        grad_bias: (out_features,), or None if it was not asked for.
    """

    grad_input: Tensor | None
    grad_bias: Tensor | None


def spmm_backward_sgd(
    topology: Csr,
    grad_output: Tensor,
    input: Tensor,
    values: Tensor,
    momentum_buffer: Tensor | None,
    *,
    for_input: bool,
    for_bias: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    clip_value: float | None,
    first: bool,
) -> OtherGradients:
    """Compute `spmm_backward`, and change the weights in place as `torch.optim.SGD` would.

    The gradient of the weights is used up part by part and never exists as a whole.

    Args:
        topology: as for `spmm_backward`.
        grad_output: as for `spmm_backward`.
        input: as for `spmm_backward`.
        values: (nnz,) nonzeros of W, contiguous; changed in place. `grad_input` is computed from
            what they were before.
        momentum_buffer: (nnz,) of the dtype of `values`, contiguous, changed in place; or None
            without momentum.
        for_input: as for `spmm_backward`.
        for_bias: as for `spmm_backward`.
        lr: learning rate, as for `torch.optim.SGD`.
        momentum: as for `torch.optim.SGD`; read only with a buffer.
        dampening: as for `torch.optim.SGD`.
        weight_decay: as for `torch.optim.SGD`.
        nesterov: as for `torch.optim.SGD`.
        maximize: as for `torch.optim.SGD`.
        clip_value: each entry of the gradient is limited to [-clip_value, clip_value] before
            anything else; None for no limit.
        first: whether the buffer holds nothing yet: it is set to the gradient.

    Returns:
        New memory. Weights and buffer agree with those of torch to rounding.

    Raises:
        ValueError: shapes or dtypes do not fit, arrays that are written share memory, or an index
            lies outside the matrix; nothing has been changed then.

    Cost: as `spmm_backward`, plus O(nnz); scratch for a few tiles of activations, for out_features
    row pointers, and for the gradient of at most max(2^20, 8 (in_features + out_features)) weights,
    or of the longest row.
    """
    parts = topology.parts
    grad_input, grad_bias = operators.spmm_backward_sgd(
        grad_output,
        input,
        parts.row_pointers,
        parts.col_indices,
        values,
        momentum_buffer,
        for_input,
        for_bias,
        lr,
        momentum,
        dampening,
        weight_decay,
        nesterov,
        maximize,
        clip_value,
        first,
        parts.ccol_indices,
        parts.row_indices,
        parts.permutation,
    )
    return OtherGradients(grad_input if for_input else None, grad_bias if for_bias else None)


def spmm_backward_adamw(
    topology: Csr,
    grad_output: Tensor,
    input: Tensor,
    values: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    *,
    for_input: bool,
    for_bias: bool,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    maximize: bool,
    clip_value: float | None,
    step: float,
) -> OtherGradients:
    """Compute `spmm_backward`, and change the weights in place as `torch.optim.AdamW` would.

    Args:
        topology: as for `spmm_backward`.
        grad_output: as for `spmm_backward`.
        input: as for `spmm_backward`.
        values: as for `spmm_backward_sgd`.
        exp_avg: (nnz,) of the dtype of `values`, contiguous, changed in place.
        exp_avg_sq: the same.
        max_exp_avg_sq: the same, or None without AMSGrad.
        for_input: as for `spmm_backward`.
        for_bias: as for `spmm_backward`.
        lr: learning rate, as for `torch.optim.AdamW`.
        betas: as for `torch.optim.AdamW`.
        eps: as for `torch.optim.AdamW`.
        weight_decay: as for `torch.optim.AdamW`.
        maximize: as for `torch.optim.AdamW`.
        clip_value: as for `spmm_backward_sgd`.
        step: the number of this step, from 1.

    Results, errors and cost are those of `spmm_backward_sgd`.
    """
    parts = topology.parts
    grad_input, grad_bias = operators.spmm_backward_adamw(
        grad_output,
        input,
        parts.row_pointers,
        parts.col_indices,
        values,
        exp_avg,
        exp_avg_sq,
        max_exp_avg_sq,
        for_input,
        for_bias,
        lr,
        *betas,
        eps,
        weight_decay,
        maximize,
        clip_value,
        step,
        parts.ccol_indices,
        parts.row_indices,
        parts.permutation,
    )
    return OtherGradients(grad_input if for_input else None, grad_bias if for_bias else None)


def _empty(
    grad_output: Tensor, input: Tensor, for_input: bool, for_bias: bool
) -> tuple[Tensor, Tensor]:
    batch, in_features = input.shape
    return (
        input.new_empty((batch if for_input else 0, in_features)),
        input.new_empty((grad_output.shape[1] if for_bias else 0,), dtype=sum_dtype(grad_output)),
    )


@fake("spmm_backward_sgd")
def _spmm_backward_sgd_fake(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    momentum_buffer: Tensor | None,
    for_input: bool,
    for_bias: bool,
    *_: object,
) -> tuple[Tensor, Tensor]:
    return _empty(grad_output, input, for_input, for_bias)


@fake("spmm_backward_adamw")
def _spmm_backward_adamw_fake(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    for_input: bool,
    for_bias: bool,
    *_: object,
) -> tuple[Tensor, Tensor]:
    return _empty(grad_output, input, for_input, for_bias)


@plain_torch("spmm_backward_sgd")
def spmm_backward_sgd_reference(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    momentum_buffer: Tensor | None,
    for_input: bool,
    for_bias: bool,
    lr: float,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    clip_value: float | None,
    first: bool,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    permutation: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `spmm_backward_sgd` in plain torch, on any device, in O(nnz batch) memory."""
    grad_input, g, grad_bias = spmm_backward_reference(
        grad_output, input, crow_indices, col_indices, values, for_input, for_bias
    )
    g = _clipped(g, clip_value, maximize) + weight_decay * values
    if momentum_buffer is not None:
        momentum_buffer.copy_(g if first else momentum * momentum_buffer + (1 - dampening) * g)
        g = g + momentum * momentum_buffer if nesterov else momentum_buffer
    values.sub_(lr * g)
    return grad_input, grad_bias


@plain_torch("spmm_backward_adamw")
def spmm_backward_adamw_reference(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    values: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    max_exp_avg_sq: Tensor | None,
    for_input: bool,
    for_bias: bool,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    clip_value: float | None,
    step: float,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    permutation: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute `spmm_backward_adamw` in plain torch, on any device, in O(nnz batch) memory."""
    grad_input, g, grad_bias = spmm_backward_reference(
        grad_output, input, crow_indices, col_indices, values, for_input, for_bias
    )
    g = _clipped(g, clip_value, maximize)
    exp_avg.lerp_(g, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    square = exp_avg_sq
    if max_exp_avg_sq is not None:
        square = max_exp_avg_sq.copy_(torch.maximum(max_exp_avg_sq, exp_avg_sq))
    denominator = square.sqrt() / (1 - beta2**step) ** 0.5 + eps
    values.mul_(1 - lr * weight_decay)
    values.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1**step))
    return grad_input, grad_bias


def _clipped(gradient: Tensor, clip_value: float | None, maximize: bool) -> Tensor:
    if clip_value is not None:
        gradient = gradient.clamp(-clip_value, clip_value)
    return -gradient if maximize else gradient
