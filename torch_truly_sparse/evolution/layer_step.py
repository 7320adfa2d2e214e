"""One evolution of one layer: first planned and checked, then applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..nn import SparseLayer
from ..ops import from_positions, to_positions
from .optimizer_state import fresh_entry, group_of, positional_state
from .prune import PruneRule
from .record import LayerRecord
from .regrow import RegrowRule
from .topology_change import TopologyChange, move_entries


@dataclass(frozen=True)
class LayerStep:
    """What is about to happen to a layer.

    All layers are planned before any is applied: an error leaves the whole network as it was. In
    between only what is small is kept, about 5 bytes a connection in float32; the next topology,
    made once to check it, is made again.

    Attributes:
        name: of the layer in the model.
        layer: the layer.
        dropped: (nnz,) bool, in the order of the present topology.
        regrown: (count,) int64 positions that take their place, increasing.
        followers: the weights, their gradient and the optimizer state, each a tensor of the shape
            of the weights with the entries of the new connections.
    """

    name: str
    layer: SparseLayer
    dropped: Tensor
    regrown: Tensor
    followers: list[tuple[Tensor, Tensor | float]]

    @torch.no_grad()
    def apply(self) -> LayerRecord:
        """Change the layer, its gradient and its optimizer state in place."""
        layer = self.layer
        held = [layer.gather(tensor) for tensor, _ in self.followers]
        source = self._replace_topology()
        for (tensor, fresh), entries in zip(self.followers, held, strict=True):
            layer.scatter_(tensor, move_entries(entries, source, fresh))
        pruned = int(torch.count_nonzero(self.dropped))
        return LayerRecord(self.name, pruned, self.regrown.shape[0], layer.nnz)

    def _replace_topology(self) -> Tensor:
        """Put the next topology in place; returns where its connections come from."""
        layer = self.layer
        change = TopologyChange.merge(
            layer.indices, self.dropped, self.regrown, layer.out_features, layer.in_features
        )
        layer.replace_topology(change.indices)
        return change.source  # the indices themselves are free again


@torch.no_grad()
def plan(
    name: str,
    layer: SparseLayer,
    optimizer: Optimizer,
    prune: PruneRule,
    regrow: RegrowRule,
    fraction: float,
    generator: torch.Generator | None,
) -> LayerStep:
    """Ask the rules for the next topology of a layer, and check all that they answer.

    Raises:
        TypeError, ValueError: a rule's answer, or the optimizer's state, does not fit.
    """
    parameter = layer.weight_parameter
    group = group_of(optimizer, parameter, name)
    state = positional_state(optimizer, parameter, name)

    weights = layer.gather(parameter.detach())
    dropped = prune.select(weights, fraction, generator=generator)
    _check(dropped, torch.bool, weights.shape[0], f"`select` of {_named(prune)}", name)
    count = int(torch.count_nonzero(dropped))
    indices, nnz, in_features = layer.indices, weights.shape[0], layer.in_features

    survivors = to_positions(indices, dropped, nnz - count, in_features)
    regrown = regrow.select(layer, survivors, count, generator=generator)
    del survivors
    _check(regrown, torch.int64, count, f"`select` of {_named(regrow)}", name)
    try:
        following = TopologyChange.merge(
            indices, dropped, regrown, layer.out_features, in_features
        ).indices
    except ValueError as error:
        raise ValueError(f"layer {name!r}, `select` of {_named(regrow)}: {error}") from error
    connections = from_positions(regrown, layer.out_features, in_features, following.dtype)
    new_weights = regrow.draw_weights(layer, connections, following, generator=generator)
    del connections, following
    _check(new_weights, weights.dtype, count, f"`draw_weights` of {_named(regrow)}", name)

    followers: list[tuple[Tensor, Tensor | float]] = [(parameter.detach(), new_weights)]
    if parameter.grad is not None:
        followers.append((parameter.grad.detach(), 0.0))
    for key in state:
        entry = optimizer.state[parameter][key]
        followers.append((entry, fresh_entry(optimizer, key, group, new_weights, entry.dtype)))
    return LayerStep(name, layer, dropped, regrown, followers)


def _check(answer: Any, dtype: torch.dtype, count: int, source: str, name: str) -> None:
    if not isinstance(answer, Tensor) or answer.dtype != dtype or answer.shape != (count,):
        got = (
            f"{answer.dtype} of shape {tuple(answer.shape)}"
            if isinstance(answer, Tensor)
            else repr(answer)
        )
        raise ValueError(
            f"layer {name!r}: {source} must return a {dtype} tensor of shape ({count},), got {got}"
        )


def _named(rule: PruneRule | RegrowRule) -> str:
    return type(rule).__name__
