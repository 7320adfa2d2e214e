"""One network from those of all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..nn import SparseLayer
from .group import check_group, check_same_on_all, check_unwrapped
from .merge import (
    Counts,
    check_names,
    connections,
    count_to_keep,
    merge_connections,
    other_tensors,
    put,
    sparse_layers,
)

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def merge_ranks(
    model: Model, *, nnz: Counts = None, process_group: dist.ProcessGroup | None = None
) -> Model:
    """Merge the models of all ranks, as `merge_topologies` does; each rank gets the result.

    Call it on every rank, each with the model that it has trained by itself.

    Args:
        model: a module of one architecture on all ranks; changed in place. Its parameters stay the
            same objects, but the state of its optimizer belongs to the weights before: make a new
            optimizer.
        nnz: as for `merge_topologies`, the same on all ranks.
        process_group: the ranks; None is the default group.

    Returns:
        The same module.

    Raises:
        TypeError: `model` is no module, or it is in `DistributedDataParallel`.
        ValueError: as for `merge_topologies`, on all ranks.
        RuntimeError: torch.distributed is not initialised.

    Cost: each rank sends its model to all others. For n connections in all copies of a layer,
    O(n log n) time and O(n) memory, layer by layer.

    Source: WASAP-SGD, phase 2, Curci et al. 2021 (arXiv 2102.01732).
    """
    check_unwrapped(model)
    check_group(process_group)
    layers, others = sparse_layers(model), other_tensors(model)
    facts = [
        f"{name!r}: {type(layer).__name__} of {layer.out_features} x {layer.in_features}, size "
        f"fixed by {layer.nnz_fixed_by}"
        for name, layer in layers.items()
    ]
    facts += [f"{key!r}: {tensor.dtype} of {tuple(tensor.shape)}" for key, tensor in others.items()]
    check_same_on_all([*facts, f"nnz={nnz}"], process_group, "`model` and `nnz`")
    check_names(nnz, layers)
    size = dist.get_world_size(process_group)
    counts = {name: _counts(layer, size, process_group) for name, layer in layers.items()}
    wanted = {name: count_to_keep(counts[name], nnz, name) for name in layers}
    for name, layer in layers.items():
        if any(count != wanted[name] for count in counts[name]):  # or some ranks would go on alone
            layer.check_resizable()
    merged = {
        name: merge_connections(
            _copies(layer, counts[name], process_group), size, wanted[name], name
        )
        for name, layer in layers.items()
    }
    for name, layer in layers.items():
        put(layer, *merged.pop(name))
    for tensor in others.values():
        tensor.copy_(_average(tensor, size, process_group))
    return model


def _counts(layer: SparseLayer, size: int, group: dist.ProcessGroup | None) -> list[int]:
    mine = torch.tensor([layer.nnz], device=layer.weight_parameter.device)
    table = [torch.empty_like(mine) for _ in range(size)]
    dist.all_gather(table, mine, group=group)
    return [int(count) for count in table]


def _copies(
    layer: SparseLayer, counts: list[int], group: dist.ProcessGroup | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Send what a layer holds to all ranks, and receive what theirs do."""
    own = connections(layer)
    rank = dist.get_rank(group)
    for source, count in enumerate(counts):
        pair = own if source == rank else tuple(each.new_empty(count) for each in own)
        positions, weights = (each.contiguous() for each in pair)
        dist.broadcast(positions, group=group, group_src=source)
        dist.broadcast(weights, group=group, group_src=source)
        yield positions, weights


def _average(tensor: Tensor, size: int, group: dist.ProcessGroup | None) -> Tensor:
    if not tensor.is_floating_point():
        first = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(first, group=group, group_src=0)
        return first
    total = tensor.detach().to(torch.float64, memory_format=torch.contiguous_format, copy=True)
    dist.all_reduce(total, group=group)
    return total.div_(size)
