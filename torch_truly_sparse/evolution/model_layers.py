"""Which layers of a model evolve."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from .._module_names import ModuleNames
from .._wrappers import data_parallel_parts
from ..nn import SparseLayer
from .ranks import is_shared


def find_layers(model: nn.Module, exclude: Iterable[str]) -> dict[str, SparseLayer]:
    """Find the sparse layers of a model by name, each once.

    Args:
        model: the module to search. In a `DistributedDataParallel`, or compiled, names are those
            of the module inside.
        exclude: globs of module names (as in `model.named_modules()`) to leave out, with all that
            is inside. A layer used under several names is left out if one of them matches.

    Raises:
        TypeError: an argument has the wrong type, or weights are sharded among processes.
        ValueError: the model is wrapped for data parallelism and was not prepared, a glob matches
            no sparse layer, no layer is left, or two layers share their weights.
    """
    names = ModuleNames(model)
    for name, wrapper in data_parallel_parts(model).items():
        _check_prepared(name, wrapper)
    sparse = [module for module in names if isinstance(module, SparseLayer)]
    layers = {names.of(layer): layer for layer in names.without(sparse, exclude)}
    if not layers:
        raise ValueError(
            "`model` has no sparse layer to evolve"
            + (
                ", because `exclude` matches all of them"
                if sparse
                else ": use TrulySparseLinear in place of nn.Linear"
            )
        )
    _check_unshared(layers)
    _check_whole(layers, names)
    return layers


def output_layer(model: nn.Module) -> SparseLayer | None:
    """Find the last linear or convolutional layer of a model, if it is a sparse one.

    The last in the order of `model.modules()`: the order in which a model names its parts is
    nearly always that in which it uses them.
    """
    kinds = (SparseLayer, nn.Linear, nn.modules.conv._ConvNd)
    last = [module for module in model.modules() if isinstance(module, kinds)][-1:]
    return next((layer for layer in last if isinstance(layer, SparseLayer)), None)


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
