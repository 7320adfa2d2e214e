"""How a layer's weights, their gradient and their optimizer state follow another nnz."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..nn import SparseLayer
from .topology_change import TopologyChange


@torch.no_grad()
def resize(
    layer: SparseLayer, change: TopologyChange, followers: Sequence[tuple[Tensor, Tensor | float]]
) -> None:
    """Apply a change of topology that may change the number of connections.

    The parameter, its gradient and the optimizer's state entries stay the same objects, with
    memory of another size beneath them, so nobody is left with a stale one.

    Args:
        layer: the layer.
        change: its next topology.
        followers: the layer's `weight_parameter`, its `grad` and all state entries of its shape,
            each with the entries of new connections, (number grown,) or one number for all.

    Raises:
        ValueError: the layer's nnz is fixed (`SparseLayer.nnz_fixed_by`); nothing is changed.

    Cost: O(nnz).
    """
    parameter = layer.weight_parameter
    gradient = parameter.grad
    moved = [(tensor, change.move(layer.gather(tensor), fresh)) for tensor, fresh in followers]
    layer.resize_topology(change.indices)
    for tensor, entries in moved:
        if tensor.shape == parameter.shape:
            layer.scatter_(tensor, entries)
        else:
            tensor.data = entries
    parameter.grad = gradient
