"""Which weights an optimizer updates within their own backward pass, without a gradient array."""

from __future__ import annotations

import weakref
from typing import Protocol

import torch
from torch import Tensor, nn

from .._torch_internals import gradient_arrives, has_gradient_hooks
from .csr import CsrParts
from .spmm_backward_update import OtherGradients


class UpdatesInBackward(Protocol):
    """What is asked of an optimizer that updates weights within their backward pass."""

    def update_in_backward(
        self,
        topology: CsrParts,
        grad_output: Tensor,
        input: Tensor,
        values: Tensor,
        *,
        for_input: bool,
        for_bias: bool,
    ) -> OtherGradients:
        """Change `values` in place, and return the other gradients of the layer."""

    def has_updated(self, parameter: Tensor) -> bool:
        """Return whether a parameter has been updated since the last step."""


_Entry = tuple["weakref.ref[Tensor]", "weakref.ref[UpdatesInBackward]"]
_updated: dict[int, _Entry] = {}  # by the id of the parameter


def hand_over(parameter: nn.Parameter, optimizer: UpdatesInBackward) -> None:
    """Let an optimizer update a parameter in its backward pass, in place of an earlier one.

    Neither is kept alive.
    """
    key = id(parameter)
    _updated[key] = (
        weakref.ref(parameter, lambda _: _updated.pop(key, None)),
        weakref.ref(optimizer),
    )


def owner_of(parameter: Tensor) -> UpdatesInBackward | None:
    """Return the optimizer that a parameter has been handed over to, or None."""
    entry = _updated.get(id(parameter))
    if entry is None or entry[0]() is not parameter:
        return None
    return entry[1]()


def updater_of(values: Tensor) -> UpdatesInBackward | None:
    """Return the optimizer that is to update these weights in the backward pass that runs now.

    There is none, and the gradient is made as usual, where something else needs the gradient: a
    hook on the weights, `torch.autograd.grad`, `torch.distributed` to average it; or where the
    backward pass does not see the parameter itself: in a compiled graph, or where activations are
    computed again or kept elsewhere (checkpointing, `save_on_cpu`).

    Cost: 4 microseconds for weights that have been handed over, otherwise a tenth of one.
    """
    if not _updated or torch.compiler.is_compiling():
        return None
    owner = owner_of(values)
    if owner is None or has_gradient_hooks(values) or not gradient_arrives(values):
        return None
    distributed = torch.distributed  # its wrappers wait for every gradient, even of one process
    return None if distributed.is_available() and distributed.is_initialized() else owner
