"""Every function of torch that is not public and that this package relies on, in one place.

`tests/test_torch_internals.py` tests what this package expects of each function: a version of torch
that changes one fails in that test, instead of giving wrong results in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import forward_ad

_Tensor = TypeVar("_Tensor", bound=Tensor)
_Function = TypeVar("_Function", bound=Callable[..., Any])

any_autocast_enabled = torch._C._is_any_autocast_enabled
"""Whether `torch.autocast` is on for any device: a cheap test before the expensive ones."""

current_backward = torch._C._current_graph_task_id
"""A number for the backward pass that runs now on this thread; -1 outside of one."""


def transforms_active() -> bool:
    """Return whether a `torch.func` transform or a level of forward mode is active.

    Only then must a product run in the form that `torch.func` takes, which costs more a call.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place; 0 where torch does not count (inference).

    Compiled code cannot read this number.
    """
    return 0 if tensor.is_inference() else tensor._version


def has_content(tensor: Tensor) -> bool:
    """Return whether a tensor holds numbers: it is neither on `meta` nor a stand-in of a trace."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def gradient_arrives(leaf: Tensor) -> bool:
    """Return whether the backward pass that runs now is going to add to `leaf.grad`.

    It is not in `torch.autograd.grad`, nor in `backward(inputs=...)` without the leaf. To be asked
    within a backward pass.
    """
    node = torch.autograd.graph.get_gradient_edge(leaf).node
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # `torch.autograd.grad` of this leaf
        return False


def has_gradient_hooks(leaf: Tensor) -> bool:
    """Return whether a hook waits for the gradient of a leaf."""
    return bool(leaf._backward_hooks) or bool(leaf._post_accumulate_grad_hooks)


def not_compiled(function: _Function) -> _Function:
    """Keep `torch.compile` from tracing a function and all that it calls.

    `torch.compiler.disable` does the same, and imports the compiler at once.
    """
    return cast(_Function, torch._compile._disable_dynamo(function))


def break_graph(reason: str) -> None:
    """Make `torch.compile` end its graph here; under `fullgraph=True` its error gives `reason`."""
    torch._dynamo.graph_break(msg=reason)


def let_data_parallel_ignore(model: nn.Module, names: Iterable[str]) -> None:
    """Keep `DistributedDataParallel` from sending these parameters and buffers of a model.

    Names that were ignored before stay ignored.
    """
    ignored = {*getattr(model, "_ddp_params_and_buffers_to_ignore", ()), *names}
    nn.parallel.DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        model, sorted(ignored)
    )


def as_described(
    kind: type[_Tensor], shape: Sequence[int], like: Tensor, layout: torch.layout
) -> _Tensor:
    """Make a tensor of a subclass that has a shape, and dtype and device of another, but no memory.

    A function of torch that reaches it is handed on to the subclass, or raises.
    """
    return torch.Tensor._make_wrapper_subclass(
        kind,
        shape,
        dtype=like.dtype,
        device=like.device,
        layout=layout,
        requires_grad=like.requires_grad,
    )


without_torch_function = torch._C.DisableTorchFunctionSubclass
"""A context in which subclasses of Tensor do not get to see the functions that take them."""
