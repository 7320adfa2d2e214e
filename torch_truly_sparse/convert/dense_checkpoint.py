"""Load what a dense model has learned into the positions of a sparse one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._arguments import check_module
from ..nn import TrulySparseLinear
from ..nn.conversion import weights_at
from ..nn.saved_state import check_saved_seal
from ..topology import Topology


class IncompatibleKeys(NamedTuple):
    """What did not fit, as `nn.Module.load_state_dict` reports it."""

    missing_keys: list[str]
    unexpected_keys: list[str]


@torch.no_grad()
def load_dense_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any], *, strict: bool = True
) -> IncompatibleKeys:
    """Load a dense model's `state_dict`; each sparse layer takes the weights at its positions.

    For a sparse layer `name` the entry `name.weight` (out_features, in_features) is read where the
    layer has connections. Its topology stays. Everything else loads as usual, and so does a layer
    that the dictionary already holds in sparse form.

    Args:
        model: a model with `TrulySparseLinear` layers.
        state_dict: of the dense model, with the same names.
        strict: whether missing and unexpected entries are an error.

    Returns:
        `missing_keys` and `unexpected_keys`.

    Raises:
        TypeError: an argument has the wrong type.
        RuntimeError: an entry has the wrong shape, or with `strict` one is missing or unexpected.
            Nothing is then changed.

    Cost: O(nnz) time and memory beside the two models.

    Example:
        >>> import torch_truly_sparse as tts
        >>> dense = nn.Sequential(nn.Linear(20, 30))
        >>> sparse = tts.sparsify(dense, density=0.1)
        >>> load_dense_state_dict(sparse, dense.state_dict())
        IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    """
    check_module(model, "model")
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"`state_dict` must be a dictionary, got {type(state_dict).__name__}")
    entries = dict(state_dict)
    problems: list[str] = []
    absent: dict[str, str] = {}  # the dense name of what is missing, by its sparse names
    for name, layer in model.named_modules(remove_duplicate=False):
        if not isinstance(layer, TrulySparseLinear):
            continue
        prefix = f"{name}." if name else ""
        if prefix + "values" in entries or prefix + "indices" in entries:
            problems += _sparse_problems(prefix, layer, entries)
            entries.setdefault(prefix + "seal", layer.seal)  # loading makes it anew
            continue
        if prefix + "weight" not in entries:
            absent |= {prefix + own: prefix + "weight" for own in ("values", "indices", "seal")}
            continue
        weight = entries.pop(prefix + "weight")
        problem = _problem(prefix + "weight", weight, (layer.out_features, layer.in_features))
        if problem:
            problems.append(problem)
            continue
        entries[prefix + "values"] = weights_at(weight, layer.topology)
        entries[prefix + "indices"] = layer.indices
        entries[prefix + "seal"] = layer.seal
    own = model.state_dict()
    for key, tensor in own.items():
        # In sparse form a layer may bring a topology of another size, which is checked above.
        resized = key.rpartition(".")[2] in ("values", "indices") and key in state_dict
        if key in entries and isinstance(tensor, Tensor) and not resized:
            problem = _problem(key, entries[key], tuple(tensor.shape))
            problems += [problem] if problem else []
    missing = list(dict.fromkeys(absent.get(key, key) for key in own if key not in entries))
    unexpected = [key for key in entries if key not in own]
    if strict and missing:
        problems.append(f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.append(f"unexpected: {', '.join(unexpected)}")
    if problems:
        raise RuntimeError(
            f"the state_dict does not fit this {type(model).__name__}:\n  " + "\n  ".join(problems)
        )
    model.load_state_dict(entries, strict=False)
    return IncompatibleKeys(missing, unexpected)


def _sparse_problems(
    prefix: str, layer: TrulySparseLinear, entries: Mapping[str, Any]
) -> list[str]:
    """Say what is wrong with the entries of a layer in sparse form."""
    absent = [name for name in ("indices", "values") if prefix + name not in entries]
    if absent:
        return [f"`{prefix}{absent[0]}` is missing: values mean nothing without their positions"]
    indices = entries[prefix + "indices"]
    try:
        topology = Topology.from_indices(indices, (layer.out_features, layer.in_features))
    except (TypeError, ValueError) as error:
        return [f"`{prefix}indices`: {error}"]
    try:
        check_saved_seal(topology, entries, prefix)
    except ValueError as error:
        return [str(error)]
    problem = _problem(prefix + "values", entries[prefix + "values"], (topology.nnz,))
    return [problem] if problem else []


def _problem(key: str, entry: Any, shape: tuple[int, ...]) -> str | None:
    if not isinstance(entry, Tensor):
        return f"`{key}` must be a torch.Tensor, got {type(entry).__name__}"
    if entry.shape != shape:
        return f"`{key}` must have shape {shape}, got {tuple(entry.shape)}"
    if entry.is_meta:
        return f"`{key}` is on the meta device and has no content to load"
    return None
