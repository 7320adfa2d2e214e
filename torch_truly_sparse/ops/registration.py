"""Decorators that register an operator's shape-only form, plain-torch form and vmap rule."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from .. import _library  # noqa: F401  (the operators must exist before they are extended)

_NAMESPACE = "torch_truly_sparse"
_Function = TypeVar("_Function", bound=Callable[..., Any])

# Kept as long as the module: torch unregisters the forms when this object is freed.
_fallbacks = torch.library.Library(_NAMESPACE, "IMPL", "CompositeExplicitAutograd")


def fake(operator: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as the shape-only form of `operator`."""

    def register(function: _Function) -> _Function:
        checked = _with_plain_operands(operator, function)
        torch.library.register_fake(f"{_NAMESPACE}::{operator}", checked)
        return function

    return register


def plain_torch(operator: str) -> Callable[[_Function], _Function]:
    """Register the decorated plain-torch form for every device without a compiled kernel."""

    def register(function: _Function) -> _Function:
        _fallbacks.impl(operator, _with_plain_operands(operator, function))
        return function

    return register


def vmap_rule(operator: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as the rule of `operator` under `torch.func.vmap`."""

    def register(function: _Function) -> _Function:
        torch.library.register_vmap(f"{_NAMESPACE}::{operator}", function)
        return function

    return register


def _with_plain_operands(operator: str, function: _Function) -> _Function:
    """Wrap a form of an operator so that it refuses operands that no kernel would take.

    torch gives a call with one operand on `meta` to the shape-only form, whatever the others hold;
    the form would return memory that nobody has written to. It gives quantized and sparse operands
    to the plain-torch form, whose functions know some of them and others not.
    """

    @functools.wraps(function)
    def checked(*operands: Any) -> Any:
        tensors = [each for each in operands if isinstance(each, torch.Tensor)]
        devices = {str(each.device) for each in tensors}
        if len(devices) > 1:
            raise ValueError(
                f"the operands of `{operator}` must be on one device, got {sorted(devices)}"
            )
        for each in tensors:
            if each.layout != torch.strided or each.is_quantized:
                kind = "quantized" if each.is_quantized else str(each.layout)
                raise TypeError(
                    f"the operands of `{operator}` must be ordinary dense tensors, got a {kind} "
                    "one; dequantize() or to_dense() makes one of it"
                )
        return function(*operands)

    return cast(_Function, checked)


def sum_dtype(activations: torch.Tensor) -> torch.dtype:
    """Return the dtype in which activations are summed, which is that of the weights, too."""
    return torch.float64 if activations.dtype == torch.float64 else torch.float32
