"""The operators that update weights within their backward pass, for the table of operators."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from operator_entry import SERIAL_VISITS, Operator, as_results
from product_entries import few, ill_formed, large, samples, spmm_backward_oracle
from torch import Tensor

from torch_truly_sparse.ops.spmm_backward_update import (
    spmm_backward_adamw_reference,
    spmm_backward_sgd_reference,
)

Tensors = tuple[Tensor, ...]


def sgd_oracle(
    dy: Tensor,
    x: Tensor,
    crow: Tensor,
    col: Tensor,
    values: Tensor,
    buffer: Tensor | None,
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
    *_: Tensor,
) -> Tensors:
    """One step of SGD as its documentation writes it; the samples clip and maximise nothing."""
    assert not maximize
    dx, g, db = spmm_backward_oracle(dy, x, crow, col, values, for_input, for_bias)
    g = g + weight_decay * values.double()
    if buffer is None:
        return dx, db, values.double() - lr * g
    moving = g if first else momentum * buffer.double() + (1 - dampening) * g
    direction = g + momentum * moving if nesterov else moving
    return dx, db, values.double() - lr * direction, moving


def adamw_oracle(
    dy: Tensor,
    x: Tensor,
    crow: Tensor,
    col: Tensor,
    values: Tensor,
    mean: Tensor,
    square: Tensor,
    largest: Tensor | None,
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
    *_: Tensor,
) -> Tensors:
    """One step of AdamW as its documentation writes it; the samples clip and maximise nothing."""
    assert not maximize
    dx, g, db = spmm_backward_oracle(dy, x, crow, col, values, for_input, for_bias)
    m = beta1 * mean.double() + (1 - beta1) * g
    v = beta2 * square.double() + (1 - beta2) * g * g
    most = v if largest is None else largest.double().maximum(v)
    corrected, root = m / (1 - beta1**step), (most / (1 - beta2**step)).sqrt()
    w = (1 - lr * weight_decay) * values.double() - lr * corrected / (root + eps)
    return (dx, db, w, m, v, *(() if largest is None else (most,)))


def on_copies(name: str, reference: Callable[..., Any]) -> Callable[..., Tensors]:
    """Let a form that writes into its arguments return what it wrote, as `compute` does."""

    def compute(*arguments: Any) -> Tensors:
        given, written = UPDATES[name].copied(arguments)
        return (*as_results(reference(*given)), *written)

    return compute


def terms(states: int) -> Callable[..., tuple[int, ...]]:
    """Terms of each sum; some roundings more where the gradient goes on into the weights."""

    def of(dy: Tensor, x: Tensor, *rest: Any) -> tuple[int, ...]:
        written = 1 + sum(isinstance(each, Tensor) for each in rest[3 : 3 + states])
        return (dy.shape[1], dy.shape[0], *[dy.shape[0] + 8] * written)

    return of


def entry(
    name: str, reference: Callable[..., Any], oracle: Callable[..., Any], states: tuple[str, ...]
) -> Operator:
    return Operator(
        name,
        partial(samples, name),
        partial(few, name),
        partial(ill_formed, name),
        large=partial(large, name),
        split_from=SERIAL_VISITS,
        reference=on_copies(name, reference),
        oracle=oracle,
        terms=terms(len(states)),
        arbitrary=frozenset({"grad_output", "input"}),
        writes=frozenset({"values", *states}),
    )


UPDATES = {
    made.name: made
    for made in [
        entry("spmm_backward_sgd", spmm_backward_sgd_reference, sgd_oracle, ("momentum_buffer",)),
        entry(
            "spmm_backward_adamw",
            spmm_backward_adamw_reference,
            adamw_oracle,
            ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
        ),
    ]
}
