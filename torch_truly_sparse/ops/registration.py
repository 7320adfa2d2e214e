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
        checked = _on_one_device(operator, function)
        torch.library.register_fake(f"{_NAMESPACE}::{operator}", checked)
        return function

    return register


def plain_torch(operator: str) -> Callable[[_Function], _Function]:
    """Register the decorated plain-torch form for every device without a compiled kernel."""

    def register(function: _Function) -> _Function:
        _fallbacks.impl(operator, _on_one_device(operator, function))
        return function

    return register


def vmap_rule(operator: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as the rule of `operator` under `torch.func.vmap`."""

    def register(function: _Function) -> _Function:
        torch.library.register_vmap(f"{_NAMESPACE}::{operator}", function)
        return function

    return register


def _on_one_device(operator: str, function: _Function) -> _Function:
    """Wrap a form of an operator so that it refuses operands of several devices.

    torch gives a call with one operand on `meta` to the shape-only form, whatever the others hold;
    the form would return memory that nobody has written to.
    """

    @functools.wraps(function)
    def checked(*operands: Any) -> Any:
        devices = {str(each.device) for each in operands if isinstance(each, torch.Tensor)}
        if len(devices) > 1:
            raise ValueError(
                f"the operands of `{operator}` must be on one device, got {sorted(devices)}"
            )
        return function(*operands)

    return cast(_Function, checked)


def sum_dtype(activations: torch.Tensor) -> torch.dtype:
    """Return the dtype in which activations are summed, which is that of the weights, too."""
    return torch.float64 if activations.dtype == torch.float64 else torch.float32
