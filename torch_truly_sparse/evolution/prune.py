"""Prune rules: which connections go.

A rule is a small object with one method, `select`, that marks connections of a `LayerView`. How to
add one: docs/evolution_rules.md.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .._arguments import as_instance, as_scale
from ..ops import mark_smallest, mark_weakest, sample
from ..topology import draw_seed
from .layer_view import LayerView


class PruneRule(ABC):
    """Says which connections of a layer are dropped."""

    @abstractmethod
    def select(
        self, view: LayerView, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose the connections to drop.

        Args:
            view: the layer as it is before the change, to be read only.
            fraction: share of the connections to drop, in [0, 1].
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (nnz,) bool, True where a connection is dropped.
        """


@dataclass(frozen=True)
class SignSplitMagnitude(PruneRule):
    """Drop the `fraction` smallest positive and the `fraction` largest negative weights.

    Each sign separately, so that a layer keeps its balance of signs. Exact zeros count as the
    smallest positive weights. Drops exactly round(fraction p) + round(fraction n) of p weights
    >= 0 and n weights < 0, ties included.

    Source: SET, Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3). Their code drops every
    weight up to a threshold, so with ties it drops more.

    Cost: O(nnz) time and memory.
    """

    def select(
        self, view: LayerView, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says; deterministic."""
        weights = view.weights
        below = int(torch.count_nonzero(weights < 0))
        return mark_weakest(
            weights,
            positive=count_to_drop(weights.shape[0] - below, fraction),
            negative=count_to_drop(below, fraction),
        )


@dataclass(frozen=True)
class MagnitudePrune(PruneRule):
    """Drop the `fraction` smallest weights by absolute value: exactly round(fraction nnz).

    Source: the magnitude criterion of RigL (Evci et al. 2020) and most work after SET.

    Cost: O(nnz) time and memory.
    """

    def select(
        self, view: LayerView, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says; deterministic."""
        return smallest(view.weights.abs(), count_to_drop(view.nnz, fraction))


@dataclass(frozen=True)
class MagnitudeGradientPrune(PruneRule):
    """Drop the `fraction` of the weights with the smallest `|w| + gradient_weight |dL/dw|`.

    A small weight that is about to grow is spared. Drops exactly round(fraction nnz).

    Args:
        gradient_weight: lambda in the paper, at least 0. Weights and gradients differ in scale from
            network to network, so no value fits all; the default of the paper's code is 0.

    Raises:
        TypeError: `gradient_weight` is no number.
        ValueError: `gradient_weight` is out of range; in `select`, the layer has no gradient.

    Source: MEST, Yuan et al. 2021 (arXiv 2110.14032).

    Cost: O(nnz) time and memory.
    """

    gradient_weight: float = 1.0

    def __post_init__(self) -> None:
        weight = as_scale(self.gradient_weight, "gradient_weight")
        object.__setattr__(self, "gradient_weight", weight)

    def select(
        self, view: LayerView, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says; deterministic."""
        scores = view.gradient.abs().mul_(self.gradient_weight).add_(view.weights.abs())
        return smallest(scores, count_to_drop(view.nnz, fraction))


@dataclass(frozen=True)
class RandomPrune(PruneRule):
    """Drop exactly round(fraction nnz) connections, every set of them equally likely.

    The baseline that a prune rule must beat.

    Cost: O(nnz) time and memory.
    """

    def select(
        self, view: LayerView, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says."""
        dropped = torch.zeros(view.nnz, dtype=torch.bool, device=view.weights.device)
        chosen = sample(view.nnz, count_to_drop(view.nnz, fraction), draw_seed(generator))
        dropped[chosen.to(dropped.device)] = True
        return dropped


def count_to_drop(nnz: int, fraction: float) -> int:
    """Round `fraction * nnz` to the nearest count."""
    return round(fraction * nnz)


def smallest(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` smallest of `scores`; of equal ones, those that come first; NaN is largest.

    Args:
        scores: (n,).
        count: between 0 and n.

    Returns:
        (n,) bool with exactly `count` True.

    Cost: O(n), by a radix search; no sort.
    """
    return mark_smallest(scores, count)


_NAMED: dict[str, PruneRule] = {
    "sign_split": SignSplitMagnitude(),
    "magnitude": MagnitudePrune(),
    "magnitude_gradient": MagnitudeGradientPrune(),
    "random": RandomPrune(),
}


def prune_rule(given: str | PruneRule) -> PruneRule:
    """Look up a prune rule by name; a rule passes through. Errors: see `as_instance`."""
    return as_instance(given, "prune", PruneRule, _NAMED)
