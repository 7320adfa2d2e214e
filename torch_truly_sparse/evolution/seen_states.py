"""Notices an optimizer state that belongs to another topology than the weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from ..nn import SparseLayer


class SeenStates:
    """What the topologies and the optimizer's state were when they last belonged together.

    A saved state that is loaded into the model alone ("the best weights so far") brings its own
    topology; momentum and the like, which the optimizer keeps, then belong to other connections.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, tuple[int, ...]]] = {}

    def see(self, optimizer: Optimizer, layers: Mapping[str, SparseLayer]) -> None:
        """Note that topologies and state belong together now."""
        self._seen = {
            name: (layer.topology_changes, _entries(optimizer, layer))
            for name, layer in layers.items()
        }

    def check(self, optimizer: Optimizer, layers: Mapping[str, SparseLayer]) -> None:
        """Warn of layers whose topology has changed while the entries of the state are the same."""
        stale = []
        for name, layer in layers.items():
            changes, entries = self._seen.get(name, (0, ()))
            if changes != layer.topology_changes:
                if entries and entries == _entries(optimizer, layer):
                    stale.append(name)
            elif entries:
                continue
            self._seen[name] = layer.topology_changes, _entries(optimizer, layer)
        if stale:
            warnings.warn(
                f"layer {stale[0]!r} got another topology (a loaded state, an assignment) and the "
                "optimizer kept its state, which belongs to the topology before: its momentum now "
                "moves other connections. Load the optimizer's state, too, or make a new optimizer",
                stacklevel=4,
            )


def _entries(optimizer: Optimizer, layer: SparseLayer) -> tuple[int, ...]:
    """Return what tells the entries of the state that hold one number for each weight."""
    parameter = layer.weight_parameter
    state = optimizer.state.get(parameter, {})
    return tuple(
        id(entry)
        for entry in state.values()
        if isinstance(entry, Tensor) and entry.dim() > 0 and entry.shape == parameter.shape
    )
