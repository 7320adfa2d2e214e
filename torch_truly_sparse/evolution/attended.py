"""Warns, once, where weights train and the evolution that they were given does not run."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from .._torch_internals import not_compiled
from ..nn import SparseLayer
from ..nn.sparse_layer import marked_layers

PATIENCE = 3
"""Steps that an optimizer may make before its evolution has seen one: others may come first."""


class Evolution(Protocol):
    """What is asked of a `SparseEvolution`."""

    every: int | None
    has_stepped: bool

    @property
    def layers(self) -> tuple[SparseLayer, ...]:
        """The layers that evolve."""

    def follows(self, optimizer: Optimizer) -> bool:
        """Whether the hook is on this optimizer."""


# Every SparseEvolution whose hook is on an optimizer. The optimizers keep them alive, not this set.
live: weakref.WeakSet[Evolution] = weakref.WeakSet()


class _Watched:
    """What is known of one optimizer.

    Attributes:
        steps: that it has made while layers which it trains had no evolution that runs.
        warned: names or numbers of the layers that were warned of.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.warned: set[int] = set()


_watched: weakref.WeakKeyDictionary[Optimizer, _Watched] = weakref.WeakKeyDictionary()


def started(evolution: Evolution, layers: Iterable[SparseLayer]) -> None:
    """Note that an evolution runs, and mark its layers; their copies are marked, too."""
    live.add(evolution)
    for layer in layers:
        layer.mark_evolving(True)


def ended(evolution: Evolution, layers: Iterable[SparseLayer]) -> None:
    """Note that an evolution was removed: its layers keep their topology, and may train so."""
    live.discard(evolution)
    for layer in layers:
        layer.mark_evolving(False)


@not_compiled
def _after_any_step(optimizer: Optimizer, *_: Any) -> None:
    """Look, after each step of any optimizer, for weights whose evolution does not run."""
    if not marked_layers:
        return
    attended: set[int] = set()
    neglected: set[int] = set()
    for evolution in live:
        runs = evolution.follows(optimizer) or evolution.every is None or evolution.has_stepped
        (attended if runs else neglected).update(map(id, evolution.layers))
    alone = [layer for layer in marked_layers if id(layer) not in attended]
    if not alone:
        return
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    alone = [layer for layer in alone if id(layer.weight_parameter) in trained]
    if not alone:
        return
    watched = _watched.setdefault(optimizer, _Watched())
    watched.steps += 1
    alone = [layer for layer in alone if id(layer) not in watched.warned]
    if watched.steps < PATIENCE or not alone:
        return
    watched.warned |= set(map(id, alone))
    if any(id(layer) in neglected for layer in alone):
        reason = (
            "their SparseEvolution is on another optimizer, which makes no steps. Give it the "
            f"{type(optimizer).__name__} that trains them"
        )
    else:
        reason = (
            "they are copies, or were unpickled, without the SparseEvolution of the originals. "
            "Make a new SparseEvolution for them; copy or pickle model, optimizer and evolution "
            "together; or call `evolution.remove()` before copying"
        )
    shapes = ", ".join(f"{layer.out_features} x {layer.in_features}" for layer in alone)
    warnings.warn(
        f"weights of {len(alone)} sparse layers ({shapes}) train, and their topology does not "
        f"evolve: {reason}",
        stacklevel=2,
    )


register_optimizer_step_post_hook(_after_any_step)
