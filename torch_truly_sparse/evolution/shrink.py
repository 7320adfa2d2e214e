"""Shrink rules: which connections go for good, so that a layer has fewer afterwards."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .._arguments import as_float, as_fraction, as_instance, as_int
from ..topology import connections_at
from .layer_view import LayerView
from .prune import smallest


class ShrinkRule(ABC):
    """Says which connections of a layer are dropped without being regrown."""

    @abstractmethod
    def select(self, view: LayerView, *, generator: torch.Generator | None) -> Tensor:
        """Choose the connections to drop for good.

        Args:
            view: the layer as it is before the change, to be read only. `view.step` and
                `view.evolutions` say how far training has come.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (nnz,) bool, True where a connection is dropped.
        """


@dataclass(frozen=True)
class ImportancePrune(ShrinkRule):
    """Cut off the neurons whose incoming weights are the weakest.

    The importance of neuron i is `sum over j of |w_ij|` over its incoming weights. Neurons at or
    below a percentile of all neurons of their layer, those without incoming weights among them,
    lose all incoming weights. These are not regrown, but the regrowth of other connections may give
    such a neuron new ones. The last linear layer of the model is left alone.

    Args:
        percentile: percentile of the neurons that are cut off, in [0, 100].
        every: number of evolutions from one cut to the next; with one evolution an epoch, epochs.
        start: number of evolutions before which nothing is cut: the first cut is made in the first
            evolution after `start` whose number (from 0) is a multiple of `every`.

    Raises:
        TypeError, ValueError: an argument is out of range, or no number.

    Source: Curci et al. 2021 (arXiv 2102.01732). The defaults are those of their sequential code;
    in parallel: `ImportancePrune.parallel()`.

    Cost: O(nnz + out_features) time and memory.
    """

    percentile: float = 20.0
    every: int = 10
    start: int = 200

    def __post_init__(self) -> None:
        percentile = as_float(self.percentile, "percentile")
        if not 0 <= percentile <= 100:
            raise ValueError(f"`percentile` must lie in [0, 100], got {percentile}")
        object.__setattr__(self, "percentile", percentile)
        for name, least in (("every", 1), ("start", 0)):
            object.__setattr__(self, name, as_int(getattr(self, name), name, least=least))

    @classmethod
    def parallel(cls) -> ImportancePrune:
        """The 10th percentile every 20 epochs after epoch 200, as in their parallel training."""
        return cls(percentile=10.0, every=20, start=200)

    def select(self, view: LayerView, *, generator: torch.Generator | None) -> Tensor:
        """Choose as `ShrinkRule.select` says; deterministic."""
        due = view.evolutions > self.start and view.evolutions % self.every == 0
        if view.is_output or not due or not view.out_features:
            return torch.zeros(view.nnz, dtype=torch.bool, device=view.weights.device)
        rows = view.topology.indices[0].long()
        importance = torch.zeros(view.out_features, dtype=torch.float64, device=rows.device)
        importance.index_add_(0, rows, view.weights.abs().double())
        # The percentile interpolates between two neurons; at or below it are those at or below
        # the lower of the two.
        rank = math.floor(self.percentile / 100 * (view.out_features - 1))
        return (importance <= importance.kthvalue(rank + 1).values)[rows]


@dataclass(frozen=True)
class GradualMagnitude(ShrinkRule):
    """Drop the smallest weights until a layer is as sparse as a cubic schedule wants it.

    Between the optimizer steps `start` and `end` the density of each layer falls as
    `final + (initial - final) (1 - (step - start) / (end - start))^3`, fast at first. A layer that
    is sparser already is left alone.

    Args:
        initial_density: until `start`, in [0, 1].
        final_density: from `end` on, in [0, initial_density].
        start: optimizer step, at least 0.
        end: optimizer step, above `start`.

    Raises:
        TypeError, ValueError: an argument is out of range, or no number.

    Source: Zhu and Gupta 2017, "To prune, or not to prune" (arXiv 1710.01878).

    Cost: O(nnz) time and memory.

    Example:
        >>> rule = GradualMagnitude(final_density=0.1, end=100)
        >>> [round(rule.density(step), 4) for step in (0, 50, 90, 100, 200)]
        [1.0, 0.2125, 0.1009, 0.1, 0.1]
    """

    final_density: float
    end: int
    initial_density: float = 1.0
    start: int = 0

    def __post_init__(self) -> None:
        for name in ("initial_density", "final_density"):
            object.__setattr__(self, name, as_fraction(getattr(self, name), name))
        for name, least in (("start", 0), ("end", 1)):
            object.__setattr__(self, name, as_int(getattr(self, name), name, least=least))
        if self.final_density > self.initial_density:
            raise ValueError(
                f"`final_density` must lie in [0, initial_density], got {self.final_density}"
            )
        if self.start >= self.end:
            raise ValueError(f"`end` must be above `start`, {self.start}, got {self.end}")

    def density(self, step: int) -> float:
        """Return the density that a layer should have after `step` optimizer steps."""
        to_go = min(max((self.end - step) / (self.end - self.start), 0.0), 1.0)
        return self.final_density + (self.initial_density - self.final_density) * to_go**3

    def select(self, view: LayerView, *, generator: torch.Generator | None) -> Tensor:
        """Choose as `ShrinkRule.select` says; deterministic."""
        wanted = connections_at(self.density(view.step), view.out_features * view.in_features)
        return smallest(view.weights.abs(), max(view.nnz - wanted, 0))


_NAMED: dict[str, ShrinkRule] = {"importance": ImportancePrune()}


def shrink_rule(given: str | ShrinkRule | None) -> ShrinkRule | None:
    """Look up a shrink rule by name; a rule and None pass through. Errors: see `as_instance`."""
    return None if given is None else as_instance(given, "shrink", ShrinkRule, _NAMED)
