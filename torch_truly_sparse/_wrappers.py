"""The wrappers that `torch.compile` and `DistributedDataParallel` put around a model."""

from __future__ import annotations

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model without the wrappers around the whole of it, in whatever order they are."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif is_compiled(model):
            model = model.get_submodule("_orig_mod")
        else:
            return model


def data_parallel_wrapper(model: nn.Module) -> DistributedDataParallel | None:
    """Return the data-parallel wrapper around the whole model, compiled or not; or None."""
    while is_compiled(model):
        model = model.get_submodule("_orig_mod")
    return model if isinstance(model, DistributedDataParallel) else None


def data_parallel_parts(model: nn.Module) -> dict[str, DistributedDataParallel]:
    """Return the data-parallel wrappers in a model by name; that of the whole model is `""`."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, DistributedDataParallel)
    }


def check_not_data_parallel(model: nn.Module, remedy: str) -> None:
    """Raise a TypeError if the model or a part of it is wrapped in `DistributedDataParallel`.

    Args:
        model: any module.
        remedy: what the user can do about it; the end of the error text.

    Raises:
        TypeError: the model contains such a wrapper.
    """
    if data_parallel_parts(model):
        raise TypeError(f"`model` is in DistributedDataParallel, or a part of it is: {remedy}")


def is_compiled(model: nn.Module) -> bool:
    """Return whether a module is the wrapper that `torch.compile` puts around another module."""
    return "_orig_mod" in model._modules
