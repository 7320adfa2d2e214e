"""Records of what an evolution did, for people and for logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LayerRecord:
    """What one evolution did to one layer.

    Attributes:
        name: of the layer in the model.
        pruned: connections dropped.
        regrown: connections grown.
        nnz: connections afterwards.
    """

    name: str
    pruned: int
    regrown: int
    nnz: int


@dataclass(frozen=True)
class EvolutionRecord:
    """What one evolution did.

    Attributes:
        step: optimizer steps taken before it.
        fraction: share of each layer's connections that was to be replaced.
        layers: one record for each layer, in the order of the model.
    """

    step: int
    fraction: float
    layers: tuple[LayerRecord, ...]

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> EvolutionRecord:
        """Make a record of the dictionary that `dataclasses.asdict` made of one."""
        layers = tuple(LayerRecord(**layer) for layer in record["layers"])
        return cls(record["step"], record["fraction"], layers)

    @property
    def pruned(self) -> int:
        """Connections dropped in all layers."""
        return sum(layer.pruned for layer in self.layers)

    @property
    def regrown(self) -> int:
        """Connections grown in all layers."""
        return sum(layer.regrown for layer in self.layers)

    def __str__(self) -> str:
        head = (
            f"evolution after step {self.step}: fraction {self.fraction:g}, "
            f"pruned {self.pruned}, regrown {self.regrown}"
        )
        rows = [
            f"  {layer.name or '(model)'}: -{layer.pruned} +{layer.regrown} of {layer.nnz}"
            for layer in self.layers
        ]
        return "\n".join([head, *rows])
