"""Validation of what is to enter a truly sparse layer, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..topology import check_indices
from .sparse_layer import SparseLayer


def check_replacement(layer: SparseLayer, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Check a topology that is to take the place of a layer's own, its weights staying.

    Returns:
        The indices, contiguous and of the narrowest dtype, and their row pointers.

    Raises:
        TypeError, ValueError: they are no topology of this layer, or not of its nnz.
    """
    indices, crow_indices = check_indices(indices, layer.out_features, layer.in_features)
    if indices.shape[1] != layer.nnz:
        raise ValueError(
            f"`indices` must hold {layer.nnz} connections, one for each of `values`, "
            f"got {indices.shape[1]}"
        )
    return indices, crow_indices


def check_tensor(name: str, given: Any, shape: tuple[int, ...]) -> None:
    """Raise a TypeError where it is no tensor, a ValueError where it has another shape."""
    if not isinstance(given, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(given).__name__}")
    if given.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}, got {tuple(given.shape)}")


# Saved states


def holds_topology(state_dict: Mapping[str, Any], prefix: str) -> bool:
    """Whether a state holds both positions and values; half of a topology is a ValueError."""
    missing = [name for name in ("indices", "values") if prefix + name not in state_dict]
    if len(missing) == 1:
        raise ValueError(
            f"`{prefix}{missing[0]}` is missing: values mean nothing without their positions. "
            "Save and load both, or neither."
        )
    return not missing


def check_saved_topology(
    layer: SparseLayer, state_dict: Mapping[str, Any], prefix: str, *, assign: bool
) -> tuple[Tensor, Tensor]:
    """Check a saved topology, its values and, where there is one, its bias.

    Returns:
        The indices and their row pointers.

    Raises:
        TypeError, ValueError: loading would be refused, or would fail half-way.
    """
    indices, crow_indices = check_indices(
        state_dict[prefix + "indices"], layer.out_features, layer.in_features
    )
    if indices.shape[1] != layer.nnz:
        layer.check_resizable()
    values = state_dict[prefix + "values"]
    _check_loadable(layer, prefix + "values", values, (indices.shape[1],), assign)
    check_saved_bias(layer, state_dict, prefix, assign=assign)
    return indices, crow_indices


def check_saved_bias(
    layer: SparseLayer, state_dict: Mapping[str, Any], prefix: str, *, assign: bool
) -> None:
    """Check a saved bias, where the state holds one and the layer has one."""
    key = prefix + "bias"
    if layer.bias is not None and key in state_dict:
        _check_loadable(layer, key, state_dict[key], (layer.out_features,), assign)


def _check_loadable(
    layer: SparseLayer, key: str, saved: Any, shape: tuple[int, ...], assign: bool
) -> None:
    check_tensor(key, saved, shape)
    if saved.layout != torch.strided:
        raise ValueError(f"`{key}` must be a strided tensor, got layout {saved.layout}")
    if assign and not saved.is_floating_point():
        raise TypeError(f"`{key}` must be of floating point to be assigned, got {saved.dtype}")
    if saved.is_meta and not layer.weight_parameter.is_meta and not assign:
        raise ValueError(f"`{key}` is on the meta device and has no content to load")
