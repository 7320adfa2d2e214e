"""Records of what an evolution did, for people and for logs."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class LayerChange(NamedTuple):
    """The connections that one evolution took from a layer and gave to it.

    A connection may have gone and come back at the same position.

    Attributes:
        dropped: (pruned,) int64 positions (`out * in_features + in`), increasing.
        grown: (regrown,) int64 positions, increasing.
    """

    dropped: Tensor
    grown: Tensor

    @property
    def returned(self) -> int:
        """How many connections went and came back at the same position."""
        return int(torch.isin(self.grown, self.dropped).sum())


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
    try:
        if not isinstance(saved, Mapping):
            return [EvolutionRecord.from_dict(record) for record in saved]
        names = [_text(name) for name in saved["names"]]
        heads = [
            (_whole(step), float(fraction))
            for step, fraction in zip(saved["steps"], saved["fractions"], strict=True)
        ]
        layers: list[list[LayerRecord]] = [[] for _ in heads]
        for number, name, *counts in saved["layers"].tolist():
            pruned, regrown, nnz = map(_whole, counts)
            layers[_whole(number)].append(LayerRecord(names[_whole(name)], pruned, regrown, nnz))
        return [
            EvolutionRecord(step, fraction, tuple(each))
            for (step, fraction), each in zip(heads, layers, strict=True)
        ]
    except (KeyError, IndexError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`state` holds no history of evolutions: {error!r}") from None


def _whole(number: Any) -> int:
    """Return a number that counts something; a negative one would count from the end."""
    whole = operator.index(number)
    if whole < 0:
        raise ValueError(f"{whole} counts nothing")
    return whole


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} names no layer")
    return name
