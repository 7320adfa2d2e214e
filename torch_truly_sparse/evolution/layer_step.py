"""One evolution of one layer: first planned and checked, then applied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..nn import SparseLayer
from .layer_view import LayerView
from .optimizer_state import fresh_entry, group_of, positional_state
from .prune import PruneRule
from .record import LayerRecord
from .regrow import RegrowRule
from .resize import resize
from .shrink import ShrinkRule
from .topology_change import TopologyChange


@dataclass(frozen=True)
class LayerStep:
    """What is about to happen to a layer.

    All layers are planned before any is applied: an error leaves the whole network as it was.

    Attributes:
        name: of the layer in the model.
        layer: the layer.
        change: its next topology.
        followers: the weights, their gradient and the optimizer state, each a tensor of the shape
            of the weights with the entries of the new connections.
    """

    name: str
    layer: SparseLayer
    change: TopologyChange
    followers: list[tuple[Tensor, Tensor | float]]

    @torch.no_grad()
    def apply(self) -> LayerRecord:
        """Change the layer, its gradient and its optimizer state in place."""
        pruned, regrown = int(self.change.dropped.sum()), int(self.change.grown.sum())
        if pruned != regrown:
            resize(self.layer, self.change, self.followers)
            return LayerRecord(self.name, pruned, regrown, self.layer.nnz)
        moved = [
            (tensor, self.change.move(self.layer.gather(tensor), fresh))
            for tensor, fresh in self.followers
        ]
        self.layer.replace_topology(self.change.indices)
        for tensor, entries in moved:
            self.layer.scatter_(tensor, entries)
        return LayerRecord(self.name, pruned, regrown, self.layer.nnz)


@dataclass(frozen=True)
class Pruned:
    """What a layer is about to lose; the first half of its plan.

    Attributes:
        view: the layer.
        dropped: (nnz,) bool.
        kept: how many stay.
        exchanged: how many of the dropped are to be regrown somewhere.
    """

    view: LayerView
    dropped: Tensor
    kept: int
    exchanged: int

    @property
    def room(self) -> int:
        """How many connections could grow."""
        return self.view.out_features * self.view.in_features - self.kept


@torch.no_grad()
def plan_prune(
    view: LayerView,
    prune: PruneRule,
    shrink: ShrinkRule | None,
    fraction: float,
    generator: torch.Generator | None,
) -> Pruned:
    """Ask the rules what a layer loses: first for good, then of the rest in exchange.

    Raises:
        TypeError, ValueError: a rule's answer does not fit.
    """
    remaining, gone = view, None
    if shrink is not None:
        gone = shrink.select(view, generator=generator)
        _check(gone, torch.bool, view.nnz, f"`select` of {_named(shrink)}", view.name)
        remaining = view.without(gone)
    dropped = prune.select(remaining, fraction, generator=generator)
    _check(dropped, torch.bool, remaining.nnz, f"`select` of {_named(prune)}", view.name)
    exchanged = int(torch.count_nonzero(dropped))
    kept = remaining.nnz - exchanged
    if gone is not None:
        dropped = gone.masked_scatter(~gone, dropped)
    return Pruned(view, dropped, kept, exchanged)


@torch.no_grad()
def plan_regrow(
    pruned: Pruned, count: int, regrow: RegrowRule, generator: torch.Generator | None
) -> LayerStep:
    """Ask the rules for the next topology of a layer, and check all that they answer.

    Raises:
        TypeError, ValueError: a rule's answer, or the optimizer's state, does not fit, or the
            layer's number of connections would change and may not.
    """
    view = pruned.view
    name, layer, optimizer = view.name, view.layer, view.optimizer
    assert optimizer is not None
    parameter = layer.weight_parameter
    group = group_of(optimizer, parameter, name)
    state = positional_state(optimizer, parameter, name)
    if pruned.kept + count != layer.nnz:
        layer.check_resizable()

    survivors = view.positions[~pruned.dropped]
    regrown = regrow.select(view, survivors, count, generator=generator)
    _check(regrown, torch.int64, count, f"`select` of {_named(regrow)}", name)
    try:
        change = TopologyChange.merge(
            survivors, pruned.dropped, regrown, layer.out_features, layer.in_features
        )
    except ValueError as error:
        raise ValueError(f"layer {name!r}, `select` of {_named(regrow)}: {error}") from error
    new_weights = regrow.draw_weights(
        view, change.indices[:, change.grown], change.indices, generator=generator
    )
    _check(new_weights, view.dtype, count, f"`draw_weights` of {_named(regrow)}", name)

    followers: list[tuple[Tensor, Tensor | float]] = [(parameter, new_weights)]
    if parameter.grad is not None:
        followers.append((parameter.grad, 0.0))
    for key in state:
        entry = optimizer.state[parameter][key]
        followers.append((entry, fresh_entry(optimizer, key, group, new_weights, entry.dtype)))
    return LayerStep(name, layer, change, followers)


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


def _named(rule: object) -> str:
    return type(rule).__name__
