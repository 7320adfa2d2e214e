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

    Cost: O(nnz log nnz) time, O(nnz) memory.
    """

    def select(
        self, weights: Tensor, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        """Choose as `PruneRule.select` says; deterministic."""
        dropped = torch.zeros(weights.shape, dtype=torch.bool, device=weights.device)
        negative = weights < 0
        for side in (~negative, negative):
            members = side.nonzero().squeeze(1)
            magnitudes = weights[members].abs()
            chosen = smallest(magnitudes, count_to_drop(members.shape[0], fraction))
            dropped[members[chosen]] = True
        return dropped


@dataclass(frozen=True)
class MagnitudePrune(PruneRule):
    """Drop the `fraction` smallest weights by absolute value: exactly round(fraction nnz).

    Source: the magnitude criterion of RigL (Evci et al. 2020) and most work after SET.

    Cost: O(nnz log nnz) time, O(nnz) memory.
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
    """
    marked = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    if count <= 0:
        return marked
    infinity = float("inf")
    scores = scores.nan_to_num(nan=infinity, posinf=infinity, neginf=-infinity)
    threshold = scores.kthvalue(count).values
    torch.lt(scores, threshold, out=marked)
    ties = (scores == threshold).nonzero().squeeze(1)
    marked[ties[: count - int(marked.sum())]] = True
    return marked
