"""Keeps what an evolution does to each layer, to be drawn later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..evolution import EvolutionRecord, LayerChange
from ..evolution.sparse_evolution import SparseEvolution
from ..nn import SparseLayer


@dataclass
class LayerRecording:
    """One layer over time: when the recording starts, and after each evolution.

    Attributes:
        steps: optimizer steps taken before each entry; the first is where the recording starts.
        density: connections by possible ones.
        turnover: connections replaced, by all; 0 at the start.
        returned: of the replaced connections, the share that came back at once; 0 at the start.
        fan_in: for each entry, an int64 tensor whose element d counts the output units that have
            d connections.
        fan_out: the same of the input units.
    """

    steps: list[int] = field(default_factory=list)
    density: list[float] = field(default_factory=list)
    turnover: list[float] = field(default_factory=list)
    returned: list[float] = field(default_factory=list)
    fan_in: list[Tensor] = field(default_factory=list)
    fan_out: list[Tensor] = field(default_factory=list)

    def _add(self, step: int, layer: SparseLayer, change: LayerChange | None) -> None:
        topology = layer.topology
        replaced = 0 if change is None else change.grown.shape[0]
        came_back = 0 if change is None else change.returned
        self.steps.append(step)
        self.density.append(topology.density)
        self.turnover.append(replaced / max(topology.nnz, 1))
        self.returned.append(came_back / max(replaced, 1))
        self.fan_in.append(torch.bincount(topology.fan_in()))
        self.fan_out.append(torch.bincount(topology.fan_out()))


class Recording:
    """What becomes of the layers of an evolution, from now on.

    Args:
        evolution: it is followed until `stop()` is called.

    Attributes:
        layers: a `LayerRecording` for each layer, by its name.

    Raises:
        TypeError: `evolution` is no `SparseEvolution`.

    Cost of an evolution: O(nnz + in_features + out_features) time for each layer; kept are
    8 bytes for each number of connections that a unit may have, up to the largest.

    Example:
        >>> import torch_truly_sparse as tts
        >>> from torch_truly_sparse.plots import Recording
        >>> layer = tts.TrulySparseLinear(20, 30, density=0.1)
        >>> evolution = tts.SET(layer, torch.optim.SGD(layer.parameters(), lr=0.1), every=None)
        >>> recording = Recording(evolution)
        >>> _ = evolution.step()
        >>> recording.layers[""].turnover
        [0.0, 0.3]
    """

    def __init__(self, evolution: SparseEvolution) -> None:
        if not isinstance(evolution, SparseEvolution):
            raise TypeError(
                f"`evolution` must be a SparseEvolution, got {type(evolution).__name__}"
            )
        self.layers: dict[str, LayerRecording] = {}
        for name, layer in evolution.named_layers.items():
            self.layers[name] = LayerRecording()
            self.layers[name]._add(evolution.steps, layer, None)

        def add(record: EvolutionRecord, changes: Mapping[str, LayerChange]) -> None:
            layers = evolution.named_layers
            for name, change in changes.items():
                self.layers[name]._add(record.step, layers[name], change)

        self._handle: RemovableHandle = evolution.register_hook(add)

    def stop(self) -> None:
        """Follow the evolution no longer; what was recorded stays."""
        self._handle.remove()

    def layer(self, name: str | None) -> tuple[str, LayerRecording]:
        """Give a layer by its name, the first one for None.

        Raises:
            ValueError: there is no such layer.
        """
        if name is None:
            return next(iter(self.layers.items()))
        if name not in self.layers:
            raise ValueError(f"`layer` must be one of {list(self.layers)}, got {name!r}")
        return name, self.layers[name]


def check_recording(recording: Any) -> None:
    """Raise a TypeError for anything that is no `Recording`."""
    if not isinstance(recording, Recording):
        raise TypeError(f"`recording` must be a Recording, got {type(recording).__name__}")
