"""What a model needs before `DistributedDataParallel` wraps it."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .._torch_internals import let_data_parallel_ignore
from ..evolution.ranks import Ranks, join, leave
from ..nn import SparseLayer
from ..topology import Topology
from .group import check_group, check_same_on_all, check_unwrapped

Model = TypeVar("Model", bound=nn.Module)

_FIXED_BY = "DistributedDataParallel"


@torch.no_grad()
def prepare(model: Model, process_group: dist.ProcessGroup | None = None) -> Model:
    """Give all ranks the topology and the weights of rank 0, and keep one topology from then on.

    Call it on every rank, then wrap the model, then make optimizer and evolution:

        model = DistributedDataParallel(tts.distributed.prepare(model))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        evolution = tts.SparseEvolution(model, optimizer, every=len(loader))

    Topologies are sent once, by this call, and not at every forward pass: `DistributedDataParallel`
    is told to ignore them. Afterwards `SparseEvolution` decides on rank 0, averages over ranks the
    gradients that growth reads, and compares the topologies of all ranks before and after each
    evolution. The layers can no longer change their number of connections.

    Args:
        model: the module that will be wrapped; changed in place.
        process_group: the ranks that train it; None is the default group. Give the same one to
            `DistributedDataParallel`.

    Returns:
        The same module.

    Raises:
        TypeError: `model` is no module, or it is wrapped already.
        ValueError: the ranks hold different models, or the model has no sparse layer.
        RuntimeError: torch.distributed is not initialised.

    Cost: everything that the model holds is sent once.
    """
    check_unwrapped(model)
    check_group(process_group)
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, SparseLayer)
    }
    check_same_on_all(_signature(model, layers), process_group, "`model`")
    if not layers:
        raise ValueError(
            "`model` has no sparse layer: DistributedDataParallel can wrap it without preparation"
        )
    topologies = set()
    for name, layer in layers.items():
        _receive_topology(layer, process_group)
        topologies |= {f"{name}.{key}" if name else key for key, _ in layer.named_buffers()}
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        if key not in topologies:
            tensor.copy_(_from_first(tensor, process_group))

    let_data_parallel_ignore(model, topologies)
    ranks = Ranks(process_group, next(iter(layers.values())).weight_parameter.device)
    ranks.check_same(layers)
    for layer in layers.values():
        join(layer, ranks)
        layer.nnz_fixed_by = _FIXED_BY
    return model


def release(model: Model) -> Model:
    """Let a model's layers evolve on this rank alone again, and change their size.

    It serves to go on, on each rank by itself, with the module inside a `DistributedDataParallel`
    that is no longer used, or with a copy of that module. Nothing is sent.

    Args:
        model: the module, not its wrapper; changed in place.

    Returns:
        The same module.

    Raises:
        TypeError: `model` is no module, or it is still wrapped.
    """
    check_unwrapped(model)
    for module in model.modules():
        if isinstance(module, SparseLayer):
            leave(module)
            if module.nnz_fixed_by == _FIXED_BY:
                module.nnz_fixed_by = None
    return model


def _signature(model: nn.Module, layers: dict[str, SparseLayer]) -> list[str]:
    """Describe all that must be the same on all ranks: everything but the numbers."""
    free = {
        id(tensor)
        for layer in layers.values()
        for tensor in (layer.weight_parameter, *layer.buffers(recurse=False))
    }
    facts = [
        f"{name!r}: {type(layer).__name__} of {layer.out_features} x {layer.in_features}"
        for name, layer in layers.items()
    ]
    for key, tensor in (*model.named_parameters(), *model.named_buffers()):
        shape = "" if id(tensor) in free else f" of shape {tuple(tensor.shape)}"
        grad = ", trained" if tensor.requires_grad else ""
        facts.append(f"{key!r}: {tensor.dtype}{shape}{grad}")
    return facts


def _receive_topology(layer: SparseLayer, group: dist.ProcessGroup | None) -> None:
    """Take over rank 0's topology, of any number of connections."""
    device = layer.weight_parameter.device
    nnz = torch.tensor([layer.nnz], device=device)
    dist.broadcast(nnz, group=group, group_src=0)
    indices = layer.indices
    if indices.shape[1] != int(nnz):
        indices = indices.new_empty((2, int(nnz)))
    shape = (layer.out_features, layer.in_features)
    topology = Topology.from_indices(_from_first(indices, group), shape)
    if topology.nnz == layer.nnz:
        layer.replace_topology(topology)
    else:
        layer.nnz_fixed_by = None  # an earlier group's
        layer.resize_topology(topology)


def _from_first(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    sent = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.broadcast(sent, group=group, group_src=0)
    return sent
