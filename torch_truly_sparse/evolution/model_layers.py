"""Which layers of a model evolve."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from ..nn import SparseLayer
from .ranks import is_shared


def find_layers(model: nn.Module, exclude: Iterable[str]) -> dict[str, SparseLayer]:
    """Find the sparse layers of a model by name, each once.

    Args:
        model: the module to search. In a `DistributedDataParallel`, or compiled, names are those
            of the module inside.
        exclude: globs of names (as in `model.named_modules()`) to leave out. A layer used under
            several names is left out if one of them matches.

    Raises:
        TypeError: an argument has the wrong type, or weights are sharded among processes.
        ValueError: the model is wrapped for data parallelism and was not prepared, a glob matches
            nothing, nothing is left, or two layers share their weights.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be an nn.Module, got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, nn.parallel.DistributedDataParallel):
            _check_prepared(name, module)
    while True:  # what wraps the whole model has no part in the names
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in model._modules:  # of torch.compile
            model = model.get_submodule("_orig_mod")
        else:
            break
    globs = _globs(exclude)
    names: dict[SparseLayer, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, SparseLayer):
            names.setdefault(module, []).append(name)
    for glob in globs:
        if not any(fnmatchcase(name, glob) for known in names.values() for name in known):
            there = ", ".join(known[0] for known in names.values())
            raise ValueError(
                f"`exclude` has {glob!r}, which matches no sparse layer; there are: "
                f"{there or 'none'}"
            )
    layers = {
        known[0]: layer
        for layer, known in names.items()
        if not any(fnmatchcase(name, glob) for name in known for glob in globs)
    }
    if not layers:
        raise ValueError(
            "`model` has no sparse layer to evolve: use TrulySparseLinear in place of nn.Linear, "
            "and do not exclude all of them"
        )
    _check_unshared(layers)
    _check_whole(layers, model.modules())
    return layers


def output_layer(model: nn.Module) -> SparseLayer | None:
    """Find the last linear or convolutional layer of a model, if it is a sparse one.

    The last in the order of `model.modules()`: the order in which a model names its parts is
    nearly always that in which it uses them.
    """
    kinds = (SparseLayer, nn.Linear, nn.modules.conv._ConvNd)
    last = [module for module in model.modules() if isinstance(module, kinds)][-1:]
    return next((layer for layer in last if isinstance(layer, SparseLayer)), None)


def _globs(exclude: Iterable[str]) -> tuple[str, ...]:
    if isinstance(exclude, str):
        raise TypeError(f"`exclude` must be a list of globs; write [{exclude!r}]")
    try:
        globs = tuple(exclude)
    except TypeError:
        raise TypeError(f"`exclude` must be a list of globs, got {exclude!r}") from None
    for glob in globs:
        if not isinstance(glob, str):
            raise TypeError(f"`exclude` must hold globs of layer names, got {glob!r}")
    return globs


def _check_prepared(name: str, wrapper: nn.parallel.DistributedDataParallel) -> None:
    """Raise where ranks would hold different topologies in silence."""
    for inner, layer in wrapper.module.named_modules(remove_duplicate=False):
        if not isinstance(layer, SparseLayer):
            continue
        buffers = {f"{inner}.{key}" if inner else key for key, _ in layer.named_buffers()}
        if not is_shared(layer) or not buffers <= set(wrapper.parameters_to_ignore):
            where = f"{name!r} of `model`" if name else "`model`"
            raise ValueError(
                f"{where} is wrapped in DistributedDataParallel and layer {inner!r} in it was not "
                "prepared before: the ranks would evolve topologies of their own. Call "
                "tts.distributed.prepare(module) and then wrap the module"
            )


def _check_whole(layers: dict[str, SparseLayer], modules: Iterable[nn.Module]) -> None:
    """Raise where a process holds a part of the weights only."""
    # By name, for what makes these is large, and not imported for this. Between forward and
    # backward pass the weights of a sharded module are whole.
    sharded = {id(part) for m in modules if "FSDPModule" in _kinds(m) for part in m.modules()}
    for name, layer in layers.items():
        if id(layer) in sharded or "DTensor" in _kinds(layer.weight_parameter):
            raise TypeError(
                f"the weights of layer {name!r} are sharded (`fully_shard`, `distribute_module`), "
                "and a part of a topology cannot evolve: use DistributedDataParallel with "
                "tts.distributed.prepare, or leave the layer out with `exclude`"
            )


def _kinds(thing: object) -> set[str]:
    return {kind.__name__ for kind in type(thing).__mro__}


def _check_unshared(layers: dict[str, SparseLayer]) -> None:
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        other = owners.setdefault(id(layer.weight_parameter), name)
        if other != name:
            raise ValueError(
                f"layers {other!r} and {name!r} share one weight parameter but not one topology, "
                "which cannot evolve: use one layer in both places"
            )
