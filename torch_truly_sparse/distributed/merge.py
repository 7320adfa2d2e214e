"""One network from several: the average over the union of their topologies, pruned."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .._arguments import as_int
from ..nn import SparseLayer
from ..nn.saved_state import check_saved_seal
from ..ops import from_positions, mark_smallest, to_positions
from ..topology import Shape, Topology, seal_of, sealed_shape
from .group import check_unwrapped

Copy = TypeVar("Copy", bound=nn.Module | Mapping[str, Tensor])
Counts = int | Mapping[str, int] | None


@torch.no_grad()
def merge_topologies(copies: Sequence[Copy], *, nnz: Counts = None) -> Copy:
    """Average copies of a network over the union of their topologies, and prune the average.

    The weight at each position is `sum over copies of w_k / copies`, where a missing connection
    counts as 0; the `nnz` largest of these by magnitude stay. What is not sparse (biases, dense
    layers, running statistics) is averaged; integers are those of the first copy. Averages are made
    in float64, so merging equal copies returns that copy, bit for bit.

    Args:
        copies: layers, models, or state dicts of models, one or more, all of one architecture;
            their topologies and numbers of connections may differ. In state dicts the sparse layers
            are the truly sparse ones, which have `indices` and `values`.
        nnz: number of connections to keep, the same for all layers or one for each name of a layer;
            None keeps as many as each copy has.

    Returns:
        A new layer, model or state dict, like the first of `copies`; none of them is changed.

    Raises:
        TypeError: the copies are not of one kind.
        ValueError: `copies` is empty, the copies are not of one architecture, or `nnz` is None
            where they have different numbers of connections, or exceeds the union.

    Cost: O(n log n) time and O(n) memory for n connections in all copies of a layer, layer by
    layer.

    Source: WASAP-SGD, phase 2, Curci et al. 2021 (arXiv 2102.01732).

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> copies = [TrulySparseLinear(20, 10, nnz=30) for _ in range(4)]
        >>> merge_topologies(copies).nnz
        30
    """
    if isinstance(copies, nn.Module | Mapping) or not isinstance(copies, Sequence):
        raise TypeError(f"`copies` must be a list of copies, got {type(copies).__name__}")
    if not copies:
        raise ValueError("`copies` must hold at least one copy, got none")
    first = copies[0]
    if isinstance(first, nn.Module):
        for each in copies:
            check_unwrapped(each)
        return cast(Copy, _merge_models([cast(nn.Module, each) for each in copies], nnz))
    for each in copies:
        if not isinstance(each, Mapping):
            raise TypeError(f"`copies` must all be state dicts, got {type(each).__name__}")
    return cast(Copy, _merge_states([cast(Mapping[str, Tensor], each) for each in copies], nnz))


def merge_connections(
    parts: Iterable[tuple[Tensor, Tensor]], copies: int, nnz: int, name: str
) -> tuple[Tensor, Tensor]:
    """Average weights at positions, and keep the largest.

    Args:
        parts: (n,) int64 positions, distinct, and their weights (n,), of each copy.
        copies: number of copies.
        nnz: number of connections to keep; of equal weights the last ones are kept.
        name: of the layer, for the error.

    Returns:
        (nnz,) positions, increasing, and their weights (nnz,) in the dtype of the parts.

    Raises:
        ValueError: the union has fewer than `nnz` connections.
    """
    pairs = list(parts)
    dtype = pairs[0][1].dtype
    # Stable: the weights of a position are added in the order of the copies.
    positions, order = torch.cat([where for where, _ in pairs]).sort(stable=True)
    weights = torch.cat([weight for _, weight in pairs])[order].double()
    del pairs, order
    positions, member = torch.unique_consecutive(positions, return_inverse=True)
    if nnz > positions.shape[0]:
        raise ValueError(
            f"`nnz` must be at most the {positions.shape[0]} connections in the union of layer "
            f"{name!r}, got {nnz}"
        )
    total = weights.new_zeros(positions.shape).index_add_(0, member, weights)
    average = total.div_(copies).to(dtype)
    kept = ~mark_smallest(average.abs(), positions.shape[0] - nnz)
    return positions[kept], average[kept]


def count_to_keep(counts: Sequence[int], nnz: Counts, name: str) -> int:
    """Return the number of connections of a merged layer.

    Raises:
        ValueError: `nnz` is not given for the layer, and the copies differ; or it is negative.
        TypeError: `nnz` is no int.
    """
    wanted = nnz.get(name) if isinstance(nnz, Mapping) else nnz
    if wanted is None:
        if len(set(counts)) > 1:
            raise ValueError(
                f"the copies of layer {name!r} have {sorted(set(counts))} connections: say with "
                "`nnz` how many to keep"
            )
        return counts[0]
    wanted = as_int(wanted, "nnz")
    if wanted < 0:
        raise ValueError(f"`nnz` must not be negative, got {wanted} for layer {name!r}")
    return wanted


def check_names(nnz: Counts, names: Iterable[str]) -> None:
    """Raise where `nnz` names a layer that is not there."""
    unknown = set(nnz) - set(names) if isinstance(nnz, Mapping) else set()
    if unknown:
        raise ValueError(f"`nnz` names {min(unknown)!r}, which is no sparse layer")


def sparse_layers(model: nn.Module) -> dict[str, SparseLayer]:
    """Return the sparse layers of a model by name, each once."""
    return {name: part for name, part in model.named_modules() if isinstance(part, SparseLayer)}


def other_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model but for the weights and topologies of its sparse layers."""
    sparse = {
        id(tensor)
        for layer in sparse_layers(model).values()
        for tensor in (layer.weight_parameter, *layer.buffers(recurse=False))
    }
    everything = (*model.named_parameters(), *model.named_buffers())
    return {key: tensor for key, tensor in everything if id(tensor) not in sparse}


def connections(layer: SparseLayer) -> tuple[Tensor, Tensor]:
    """Return a layer's positions and weights."""
    weights = layer.gather(layer.weight_parameter.detach())
    return layer.topology.positions(), weights


def put(layer: SparseLayer, positions: Tensor, weights: Tensor) -> None:
    """Give a layer other connections, of any number."""
    topology = Topology.from_positions(positions, (layer.out_features, layer.in_features))
    if topology.nnz == layer.nnz:
        layer.replace_topology(topology)
    else:
        layer.resize_topology(topology)
    layer.scatter_(layer.weight_parameter, weights)


def average(tensors: Sequence[Tensor]) -> Tensor:
    """Average in float64; of integers return those of the first tensor."""
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor in tensors:
        total += tensor
    return total.div_(len(tensors)).to(first.dtype)


def _merge_models(models: list[nn.Module], nnz: Counts) -> nn.Module:
    layers, others = [sparse_layers(m) for m in models], [other_tensors(m) for m in models]
    for number, model in enumerate(models):
        ours, theirs = _architecture(models[0]), _architecture(model)
        if ours != theirs:
            key = min(set(ours.items()) ^ set(theirs.items()))[0]
            raise ValueError(
                f"`copies` must be of one architecture: {key!r} is {ours.get(key)} in the first "
                f"and {theirs.get(key)} in number {number + 1}"
            )
    check_names(nnz, layers[0])
    counts = {
        name: count_to_keep([copy[name].nnz for copy in layers], nnz, name) for name in layers[0]
    }
    merged = {
        name: merge_connections(
            (connections(copy[name]) for copy in layers), len(models), count, name
        )
        for name, count in counts.items()
    }
    result = copy.deepcopy(models[0])
    for name, layer in sparse_layers(result).items():
        layer.nnz_fixed_by = None  # a copy: nothing relies on its size
        put(layer, *merged[name])
    for key, tensor in other_tensors(result).items():
        tensor.copy_(average([copy[key] for copy in others]))
    return result


def _architecture(model: nn.Module) -> dict[str, str]:
    facts = {
        name: f"{type(layer).__name__} of {layer.out_features} x {layer.in_features}"
        for name, layer in sparse_layers(model).items()
    }
    others = other_tensors(model).items()
    return facts | {key: f"{tensor.dtype} {tuple(tensor.shape)}" for key, tensor in others}


def _merge_states(states: list[Mapping[str, Tensor]], nnz: Counts) -> dict[str, Any]:
    first = states[0]
    prefixes = [
        key.removesuffix("indices")
        for key in first
        if key.split(".")[-1] == "indices" and f"{key.removesuffix('indices')}values" in first
    ]
    sparse = {prefix + part for prefix in prefixes for part in ("indices", "values", "seal")}
    for number, state in enumerate(states):
        different = set(state) ^ set(first)
        different |= {
            key
            for key, tensor in first.items()
            if key not in sparse | different
            and (tensor.shape != state[key].shape or tensor.dtype != state[key].dtype)
        }
        if different:
            raise ValueError(
                f"`copies` must be of one architecture: {min(different)!r} of the first does not "
                f"fit that of number {number + 1}"
            )
    check_names(nnz, [prefix.removesuffix(".") for prefix in prefixes])
    merged: dict[str, Any] = {
        key: average([state[key].detach() for state in states])
        for key in first
        if key not in sparse
    }
    for prefix in prefixes:
        name = prefix.removesuffix(".")
        indices = [state[prefix + "indices"] for state in states]
        rows, columns = _shape_of(states, prefix)
        count = count_to_keep([each.shape[1] for each in indices], nnz, name)
        positions, weights = merge_connections(
            (
                # No `Topology`: its row pointers would be as many as the layer may be high.
                (
                    to_positions(each, None, each.shape[1], columns),
                    state[prefix + "values"].detach(),
                )
                for each, state in zip(indices, states, strict=True)
            ),
            len(states),
            count,
            name,
        )
        merged[prefix + "indices"] = from_positions(positions, (rows, columns), indices[0].dtype)
        merged[prefix + "values"] = weights
        if prefix + "seal" in first:
            topology = Topology.from_indices(merged[prefix + "indices"], (rows, columns))
            merged[prefix + "seal"] = seal_of(topology)
    return {key: merged[key] for key in first}


def _shape_of(states: list[Mapping[str, Tensor]], prefix: str) -> Shape:
    """Return the shape of a layer as the seals of its states say it.

    Raises:
        ValueError: the states are of layers of different shapes, or a seal is of other indices.
    """
    if prefix + "seal" in states[0]:
        shape = sealed_shape(states[0][prefix + "seal"])
        for state in states:
            topology = Topology.from_indices(state[prefix + "indices"], shape)
            check_saved_seal(topology, state, prefix)
        return shape
    # A state without a seal does not say it; to tell positions apart this will do.
    indices = [state[prefix + "indices"] for state in states]
    rows, columns = (
        max((int(each[row].max()) + 1 for each in indices if each.shape[1]), default=1)
        for row in (0, 1)
    )
    return rows, columns
