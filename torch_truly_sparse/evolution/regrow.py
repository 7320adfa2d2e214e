"""Regrow rules: where new connections appear, and with which weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ..nn.init import Initializer, initializer
from ..topology import random_empty_positions
from .layer_view import LayerView


class RegrowRule(ABC):
    """Says where a layer grows, and the weights that new connections start with."""

    @property
    def gradient_steps(self) -> int:
        """How many optimizer steps the rule reads through `LayerView.captured_gradient`; 0: none.

        The layers keep the inputs and output gradients of so many steps right before an
        evolution, and of no others. A rule says it as a class attribute, `gradient_steps = 1`.
        """
        return 0

    @abstractmethod
    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose where to grow.

        Args:
            view: the layer as it is before the change, to be read only.
            survivors: (n,) int64 positions that stay occupied, increasing
                (`out * in_features + in`).
            count: how many connections to grow.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (count,) int64 positions, increasing, none of them a survivor.
        """

    def draw_weights(
        self,
        view: LayerView,
        connections: Tensor,
        indices: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw the weights of new connections: 0, unless a rule says otherwise.

        Args:
            view: the layer as it is before the change, to be read only.
            connections: (2, count) the new connections, sorted.
            indices: (2, nnz) the topology that they become part of.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (count,) weights of the layer's dtype.
        """
        return torch.zeros(connections.shape[1], dtype=view.dtype, device=connections.device)


@dataclass(frozen=True)
class RandomRegrow(RegrowRule):
    """Grow at random: every set of empty positions is equally likely.

    A position that has just been dropped is empty, and may come back, as in the reference.

    Args:
        init: weights of new connections: `"set_normal"` (N(0, 0.1^2), as in SET),
            `"linear_uniform"`, `"he_uniform"` or `"xavier_uniform"` (Curci et al. 2021),
            `"zeros"`, or an `Initializer`.

    Source: SET, Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3).

    Cost: O(nnz + count log nnz), whatever the size of the layer.
    """

    init: str | Initializer = "set_normal"

    def __post_init__(self) -> None:
        initializer(self.init)

    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose as `RegrowRule.select` says."""
        population = view.out_features * view.in_features
        return random_empty_positions(survivors, population, count, generator=generator)

    def draw_weights(
        self,
        view: LayerView,
        connections: Tensor,
        indices: Tensor,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw as `RegrowRule.draw_weights` says."""
        return initializer(self.init).draw(
            connections,
            indices,
            view.out_features,
            view.in_features,
            dtype=view.dtype,
            generator=generator,
        )
