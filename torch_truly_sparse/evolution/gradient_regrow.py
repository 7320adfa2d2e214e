"""Growth where the gradient is large, without an array of all gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..topology import random_empty_positions
from .largest_gradients import largest_empty_positions
from .layer_view import LayerView
from .prune import smallest
from .regrow import RegrowRule
from .timetable import as_steps


@dataclass(frozen=True)
class GradientRegrow(RegrowRule):
    """Grow at the empty positions with the largest |dL/dw|; new weights are 0.

    The gradient is that of the optimizer step right before the evolution, at every position, exact:
    it is computed block by block, and only the largest so far are kept. Of equal gradients the
    lowest positions grow. A position that has just been dropped is empty.

    Source: RigL, Evci et al. 2020 (arXiv 1911.11134). A dropped connection that comes straight
    back starts at 0 here; in their code it keeps its weight.

    Cost: O(in_features out_features batch) time, once for each evolution, as one weight gradient
    of a dense layer; O(nnz) memory, a block of about 1 MiB for each thread, and the inputs and
    output gradients of one step. For a layer too wide for that: `CandidateGradientRegrow`.
    """

    gradient_steps = 1

    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose as `RegrowRule.select` says; deterministic."""
        if not count:
            return survivors[:0]
        return largest_empty_positions(view.captured_gradient(), survivors, count)


@dataclass(frozen=True)
class CandidateGradientRegrow(RegrowRule):
    """Grow at the positions with the largest |dL/dw| among random empty ones; new weights are 0.

    Candidates are drawn without replacement, every set of empty positions equally likely, and the
    gradient is computed at those only.

    Args:
        candidates: how many, as a multiple of the layer's nnz, above 0; never fewer than are to
            grow, nor more than are empty. Where all empty positions are candidates, this is
            `GradientRegrow`.

    Raises:
        ValueError: `candidates` is out of range.

    Source: guided stochastic exploration, Heddes et al. 2024 (arXiv 2401.06898), with its uniform
    distribution of candidates. There they are drawn with replacement.

    Cost: O(candidates nnz batch) time, O(candidates nnz) memory, whatever the size of the layer.
    """

    gradient_steps = 1

    candidates: float = 1.0

    def __post_init__(self) -> None:
        if not (self.candidates > 0 and math.isfinite(self.candidates)):
            raise ValueError(f"`candidates` must be a finite number above 0, got {self.candidates}")

    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose as `RegrowRule.select` says."""
        if not count:
            return survivors[:0]
        gradient = view.captured_gradient()
        population = view.out_features * view.in_features
        wanted = max(count, math.ceil(self.candidates * view.nnz))
        pool = random_empty_positions(
            survivors, population, min(wanted, population - len(survivors)), generator=generator
        )
        magnitudes = gradient.at(pool).abs_().nan_to_num_(nan=0.0, posinf=torch.inf)
        return pool[smallest(-magnitudes, count)]


@dataclass(frozen=True)
class MomentumRegrow(RegrowRule):
    """Grow at the empty positions with the largest momentum of the gradient; new weights are 0.

    An optimizer of sparse weights keeps no momentum for empty positions. This is its momentum over
    the last `steps` optimizer steps, `sum of momentum^age dL/dw`, exact but for what is older,
    computed block by block from the inputs and output gradients of those steps. Together with
    `MomentumRedistribution` it is sparse momentum.

    Args:
        momentum: how much of the gradient remains from step to step, in [0, 1); usually that of
            the optimizer.
        steps: how many steps to look back, at least 1; more than lie between two evolutions do
            not count. What is older weighs momentum^steps of the whole.

    Raises:
        TypeError, ValueError: `momentum` or `steps` is out of range.

    Source: sparse momentum, Dettmers and Zettlemoyer 2019 (arXiv 1907.04840), there with the
    momentum of all positions, from dense gradients at every step.

    Cost: `steps` times that of `GradientRegrow`, and the inputs and output gradients of so many
    steps in memory.
    """

    momentum: float = 0.9
    steps: int = 10

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1), got {self.momentum}")
        object.__setattr__(self, "steps", as_steps(self.steps, "steps"))

    @property
    def gradient_steps(self) -> int:
        """`steps`."""
        return self.steps

    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose as `RegrowRule.select` says; deterministic."""
        if not count:
            return survivors[:0]
        gradient = view.captured_gradient(decay=self.momentum)
        return largest_empty_positions(gradient, survivors, count)
