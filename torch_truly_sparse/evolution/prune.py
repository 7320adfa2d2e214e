"""Prune rules: which connections go.

A rule is a small object with one method, `select`. To add one, subclass `PruneRule`:

    @dataclass(frozen=True)
    class RandomPrune(PruneRule):
        def select(self, weights, fraction, *, generator):
            order = torch.rand(weights.shape, generator=generator)
            return smallest(order, count_to_drop(weights.numel(), fraction))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops import mark_smallest, mark_weakest


class PruneRule(ABC):
    """Says which connections of a layer are dropped."""

    @abstractmethod
    def select(
        self, weights: Tensor, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose the connections to drop.

        Args:
            weights: (nnz,) weights of the layer, to be read only.
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
        self, weights: Tensor, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says; deterministic."""
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
        self, weights: Tensor, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says; deterministic."""
        return smallest(weights.abs(), count_to_drop(weights.shape[0], fraction))


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
