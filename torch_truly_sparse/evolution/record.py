"""Records of what an evolution did, for people and for logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


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


def pack(history: Sequence[EvolutionRecord]) -> dict[str, Any]:
    """Make tensors of records, to be saved: 40 bytes for each layer of each evolution.

    Returns:
        `steps` (n,) int64, `fractions` (n,) float64, `names` of the layers, and `layers` (m, 5)
        int64: evolution, number of the name, pruned, regrown, nnz.
    """
    names: dict[str, int] = {}
    rows = [
        (number, names.setdefault(layer.name, len(names)), layer.pruned, layer.regrown, layer.nnz)
        for number, record in enumerate(history)
        for layer in record.layers
    ]
    return {
        "steps": torch.tensor([record.step for record in history], dtype=torch.int64),
        "fractions": torch.tensor([record.fraction for record in history], dtype=torch.float64),
        "names": list(names),
        "layers": torch.tensor(rows, dtype=torch.int64).reshape(-1, 5),
    }


def unpack(saved: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> list[EvolutionRecord]:
    """Make records of what `pack` made of them, or of the list of dictionaries of older states.

    Raises:
        ValueError: parts are missing or do not fit together.
    """
    if not isinstance(saved, Mapping):
        return [EvolutionRecord.from_dict(record) for record in saved]
    try:
        layers: list[list[LayerRecord]] = [[] for _ in saved["steps"]]
        for number, name, pruned, regrown, nnz in saved["layers"].tolist():
            layers[number].append(LayerRecord(saved["names"][name], pruned, regrown, nnz))
        heads = zip(saved["steps"].tolist(), saved["fractions"].tolist(), layers, strict=True)
        return [EvolutionRecord(step, fraction, tuple(each)) for step, fraction, each in heads]
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"`state` holds no history of evolutions: {error!r}") from None
