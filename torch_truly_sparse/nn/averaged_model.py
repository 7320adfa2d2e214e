"""Averages of weights (SWA, EMA) while the topology evolves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from .sparse_layer import SparseLayer


class AveragedModel(swa_utils.AveragedModel):
    """`torch.optim.swa_utils.AveragedModel` whose averages belong to connections, not to slots.

    torch's own class averages the k-th value of then with the k-th value of now. After an
    evolution these are weights of different connections, and it cannot tell. Here the averages
    follow the topology before each update: a connection that is still there keeps its average,
    one that is gone loses it, and one that is new starts with the weight that it has now, as if
    it had always had it.

    Args:
        model, device, avg_fn, multi_avg_fn, use_buffers: as there.

    Cost: an update takes O(nnz) more where the topology changed, O(nnz) memory for a moment.

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
        """Take one more model into the average.

        Args:
            model: the model whose copy this is, at a later step.

        Raises:
            ValueError: it has other sparse layers than the average; nothing is changed.
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


def _sparse_layers(model: nn.Module) -> list[SparseLayer]:
    return [module for module in model.modules() if isinstance(module, SparseLayer)]


def _size(layer: SparseLayer) -> tuple[str, Any, Any]:
    return type(layer).__name__, layer.out_features, layer.in_features


def _follow(averaged: SparseLayer, current: SparseLayer) -> None:
    """Give the averaged layer the topology of the current one, its averages along."""
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
    """Take the entry of each position that was there before, and `otherwise` for the others."""
    if not before.shape[0]:
        return otherwise.clone()
    slots = torch.searchsorted(before, after).clamp_(max=before.shape[0] - 1)
    return torch.where(before[slots] == after, entries[slots], otherwise)
