"""One evolution of one layer: first planned and checked, then applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..nn import SparseLayer
from ..ops import from_positions, move
from ..topology import Topology, TopologyChange
from .interrupts import uninterrupted
from .layer_view import LayerView
from .optimizer_state import fresh_entry, group_of, positional_state
from .prune import PruneRule
from .ranks import Alone
from .record import LayerChange, LayerRecord
from .regrow import RegrowRule
from .shrink import ShrinkRule


@dataclass(frozen=True)
class LayerStep:
    """What is about to happen to a layer.

    All layers are planned and rehearsed before any is changed, so an error leaves the whole network
    as it was. In a large network a plan keeps about 5 bytes a connection (in float32): the next
    topology, which was made to check the plan, is made again when the plan is applied, and so are
    the weights in its order. In a small network both are kept.

    Attributes:
        name: of the layer in the model.
        layer: the layer.
        dropped: (nnz,) bool, in the order of the present topology.
        regrown: (count,) int64 positions that take their place, increasing.
        followers: the weights, their gradient and the optimizer state, each a tensor of the shape
            of the weights with the entries of the new connections.
        change: the next topology, or None where it is to be made again.
        moved: what the followers will hold, if the rehearsal kept it.
    """

    name: str
    layer: SparseLayer
    dropped: Tensor
    regrown: Tensor
    followers: list[tuple[Tensor, Tensor | float]]
    change: TopologyChange | None
    moved: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def apply(self) -> LayerRecord:
        """Change the layer, its gradient and its optimizer state in place."""
        layer = self.layer
        pruned, regrown = int(torch.count_nonzero(self.dropped)), self.regrown.shape[0]
        if pruned != regrown:
            resize(layer, self._change(), self.followers)
        elif self.moved:
            layer.replace_topology(self._change().topology)
            for (tensor, _), entries in zip(self.followers, self.moved, strict=True):
                layer.scatter_(tensor, entries)
        else:
            held = [layer.gather(tensor) for tensor, _ in self.followers]
            source = self._replace_topology()
            for (tensor, fresh), entries in zip(self.followers, held, strict=True):
                layer.scatter_(tensor, move(entries, source, fresh))
        return LayerRecord(self.name, pruned, regrown, layer.nnz)

    def _replace_topology(self) -> Tensor:
        """Put the next topology in place, and return where its connections come from."""
        change = self._change()
        self.layer.replace_topology(change.topology)
        return change.source  # the next topology itself is free again

    @torch.no_grad()
    def rehearse(self) -> None:
        """Do all that can fail, and change nothing: what `apply` computes, and its memory."""
        layer = self.layer
        changes_size = int(torch.count_nonzero(self.dropped)) != self.regrown.shape[0]
        change = self._change()
        moved = []
        for tensor, fresh in self.followers:
            moved.append(move(layer.gather(tensor), change.source, fresh))
            if self.change is None and not changes_size:
                moved.clear()  # `apply`, too, moves one after the other
        if self.change is not None and not changes_size:
            self.moved.extend(moved)

    @torch.no_grad()
    def positions(self) -> LayerChange:
        """Return where connections go and come; to be asked before the plan is applied."""
        return LayerChange(self.layer.topology.positions()[self.dropped], self.regrown.clone())

    def _change(self) -> TopologyChange:
        return self.change or self.layer.topology.replace(self.dropped, self.regrown)


def apply_all(plans: Sequence[LayerStep]) -> tuple[LayerRecord, ...]:
    """Apply the plans of all layers, after each has been rehearsed.

    Ctrl-C waits until all layers have changed.

    Raises:
        RuntimeError: memory ran out although the rehearsal had found enough. The layer that was
            under way is unusable until a state is loaded.
    """
    records = []
    with uninterrupted():
        for number, plan in enumerate(plans):
            try:
                records.append(plan.apply())
            except Exception as error:
                plan.layer.spoil()
                done = f"{number} of {len(plans)} layers had changed"
                raise RuntimeError(
                    f"an evolution broke off in layer {plan.name!r} ({done}); the layer is "
                    "unusable now: load the last checkpoint"
                ) from error
    return tuple(records)


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
    layer.resize_topology(change.topology)
    for tensor, entries in moved:
        if tensor.shape == parameter.shape:
            layer.scatter_(tensor, entries)
        else:
            tensor.data = entries
    parameter.grad = gradient


@dataclass(frozen=True)
class Pruned:
    """What a layer is about to lose; the first half of its plan.

    Attributes:
        view: the layer.
        dropped: (nnz,) bool.
        kept: number of connections that stay.
        exchanged: number of dropped connections that are to be regrown, here or in another layer.
    """

    view: LayerView
    dropped: Tensor
    kept: int
    exchanged: int

    @property
    def room(self) -> int:
        """Number of positions that are then empty."""
        return self.view.out_features * self.view.in_features - self.kept


@torch.no_grad()
def plan_prune(
    view: LayerView,
    prune: PruneRule,
    shrink: ShrinkRule | None,
    fraction: float,
    generator: torch.Generator | None,
    ranks: Alone,
) -> Pruned:
    """Ask the rules which connections a layer loses: first for good, then those to be replaced.

    Raises:
        TypeError, ValueError: a rule's answer does not fit.
        RuntimeError: a rule failed on another rank.
    """
    remaining, gone = view, None
    if shrink is not None:
        gone = shrink.select(view, generator=generator)
        _checked(gone, torch.bool, view.nnz, f"`select` of {_named(shrink)}", view.name)
        remaining = view.without(gone)

    def select() -> Tensor:
        dropped = prune.select(remaining, fraction, generator=generator)
        source = f"`select` of {_named(prune)}"
        return _checked(dropped, torch.bool, remaining.nnz, source, view.name)

    dropped = ranks.decide(select)
    exchanged = int(torch.count_nonzero(dropped))
    kept = remaining.nnz - exchanged
    if gone is not None:
        dropped = gone.masked_scatter(~gone, dropped)
    return Pruned(view, dropped, kept, exchanged)


@torch.no_grad()
def plan_regrow(
    pruned: Pruned,
    count: int,
    regrow: RegrowRule,
    generator: torch.Generator | None,
    ranks: Alone,
    *,
    keep: bool,
) -> LayerStep:
    """Ask the rules where a layer grows and with which weights, and check all answers.

    `keep` says whether the plan keeps what it computes, see `LayerStep`.

    Raises:
        TypeError, ValueError: a rule's answer, or the optimizer's state, does not fit, or the
            layer's number of connections would change and may not.
        RuntimeError: a rule failed on another rank.
    """
    view = pruned.view
    name, layer, optimizer = view.name, view.layer, view.optimizer
    assert optimizer is not None
    parameter = layer.weight_parameter
    group = group_of(optimizer, parameter, name)
    state = positional_state(optimizer, parameter, name)
    if pruned.kept + count != layer.nnz:
        layer.check_resizable()

    topology, dropped = layer.topology, pruned.dropped
    survivors = topology.survivors(dropped, pruned.kept)
    regrown = ranks.decide(partial(_select, regrow, view, survivors, count, generator))
    del survivors
    try:
        change = topology.replace(dropped, regrown)
    except ValueError as error:
        raise ValueError(f"layer {name!r}, `select` of {_named(regrow)}: {error}") from error
    following = change.topology
    connections = from_positions(regrown, topology.shape, following.indices.dtype)
    new_weights = ranks.decide(partial(_draw, regrow, view, connections, following, generator))
    kept = change if keep else None
    del connections, following, change

    followers: list[tuple[Tensor, Tensor | float]] = [(parameter, new_weights)]
    if parameter.grad is not None:
        followers.append((parameter.grad, 0.0))
    for key in state:
        entry = optimizer.state[parameter][key]
        followers.append((entry, fresh_entry(optimizer, key, group, new_weights, entry.dtype)))
    return LayerStep(name, layer, dropped, regrown, followers, kept)


def _select(
    regrow: RegrowRule,
    view: LayerView,
    survivors: Tensor,
    count: int,
    generator: torch.Generator | None,
) -> Tensor:
    if not count:
        return survivors[:0]
    regrown = regrow.select(view, survivors, count, generator=generator)
    return _checked(regrown, torch.int64, count, f"`select` of {_named(regrow)}", view.name)


def _draw(
    regrow: RegrowRule,
    view: LayerView,
    connections: Tensor,
    topology: Topology,
    generator: torch.Generator | None,
) -> Tensor:
    weights = regrow.draw_weights(view, connections, topology, generator=generator)
    count = connections.shape[1]
    return _checked(weights, view.dtype, count, f"`draw_weights` of {_named(regrow)}", view.name)


def _checked(answer: Any, dtype: torch.dtype, count: int, source: str, name: str) -> Tensor:
    if not isinstance(answer, Tensor) or answer.dtype != dtype or answer.shape != (count,):
        got = (
            f"{answer.dtype} of shape {tuple(answer.shape)}"
            if isinstance(answer, Tensor)
            else repr(answer)
        )
        raise ValueError(
            f"layer {name!r}: {source} must return a {dtype} tensor of shape ({count},), got {got}"
        )
    return answer


def _named(rule: object) -> str:
    return type(rule).__name__
