"""Averages of weights (SWA, EMA) while the topology evolves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from .sparse_layer import SparseLayer


class AveragedModel(swa_utils.AveragedModel):
    """A `torch.optim.swa_utils.AveragedModel` whose averages follow an evolving topology.

    torch's own class averages the k-th entry of `values` at every update. After an evolution, entry
    k belongs to another connection than before, and the class mixes the weights of the two. Here
    the averages follow the topology before each update: a connection that still exists keeps its
    average, the average of a dropped connection is dropped, and a new connection starts with its
    present weight, as if it had always had this weight. With `use_buffers=True` all other buffers
    are averaged; the topology is not.

    Args:
        model, device, avg_fn, multi_avg_fn, use_buffers: as for
            `torch.optim.swa_utils.AveragedModel`.

    Cost: where a topology has changed, an update takes O(nnz log nnz) more time, and O(nnz) memory
    that is freed afterwards.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> layer = TrulySparseLinear(20, 10, density=0.2)
        >>> average = AveragedModel(layer, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.99))
        >>> average.update_parameters(layer)
        >>> layer.reset_topology()
        >>> average.update_parameters(layer)
        >>> torch.equal(average.module.indices, layer.indices)
        True
    """

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Update the averages with the present weights of a model.

        Args:
            model: the model that was copied at construction, at a later step of its training.

        Raises:
            ValueError: `model` has other sparse layers than the average; nothing is changed.
        """
        pairs = list(zip(_sparse_layers(self.module), _sparse_layers(model), strict=False))
        if len(_sparse_layers(self.module)) != len(_sparse_layers(model)) or any(
            _size(averaged) != _size(current) for averaged, current in pairs
        ):
            raise ValueError(
                "`model` must have the sparse layers of the averaged model, got "
                f"{[_size(layer) for layer in _sparse_layers(model)]} instead of "
                f"{[_size(layer) for layer in _sparse_layers(self.module)]}"
            )
        for averaged, current in pairs:
            _follow(averaged, current)
        super().update_parameters(model)
        if self.use_buffers:  # it has averaged the topology, too, and rounded
            for averaged, current in pairs:
                averaged.replace_topology(current.topology.to(averaged.weight_parameter.device))


def _sparse_layers(model: nn.Module) -> list[SparseLayer]:
    return [module for module in model.modules() if isinstance(module, SparseLayer)]


def _size(layer: SparseLayer) -> tuple[str, Any, Any]:
    return type(layer).__name__, layer.out_features, layer.in_features


def _follow(averaged: SparseLayer, current: SparseLayer) -> None:
    """Give the averaged layer the topology of the current layer, and move its averages along."""
    before = averaged.topology
    after = current.topology.to(before.device)
    if before == after:
        return
    averages = averaged.gather(averaged.weight_parameter).clone()
    weights = current.gather(current.weight_parameter).to(averages.device, averages.dtype)
    followed = _matched(before.positions(), averages, after.positions(), weights)
    if after.nnz == averaged.nnz:
        averaged.replace_topology(after)
    else:
        averaged.resize_topology(after)
    averaged.scatter_(averaged.weight_parameter, followed)


def _matched(before: Tensor, entries: Tensor, after: Tensor, otherwise: Tensor) -> Tensor:
    """Return, for each position of `after`, its entry if it is in `before`, else `otherwise`."""
    if not before.shape[0]:
        return otherwise.clone()
    slots = torch.searchsorted(before, after).clamp_(max=before.shape[0] - 1)
    return torch.where(before[slots] == after, entries[slots], otherwise)
