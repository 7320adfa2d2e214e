"""Regrow rules: where new connections appear, and with which weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from .._arguments import as_float, as_instance, as_int
from ..nn.init import Initializer, initializer
from ..topology import Topology, draw_seed, random_empty_positions
from .gradient import largest_empty_positions
from .layer_view import LayerView
from .paths import path_scores
from .prune import smallest


class RegrowRule(ABC):
    """Says where a layer grows, and the weights that new connections start with."""

    @property
    def gradient_steps(self) -> int:
        """Number of optimizer steps whose gradient the rule reads; 0 for none.

        The layers keep the inputs and output gradients of these steps, the last ones before an
        evolution, and of no others; the rule reads them through `LayerView.captured_gradient`. A
        rule sets a class attribute, `gradient_steps = 1`.
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
            count: how many connections to grow, at least 1: for none no rule is asked.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (count,) int64 positions, increasing, none of them a survivor.
        """

    def draw_weights(
        self,
        view: LayerView,
        connections: Tensor,
        topology: Topology,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw the weights of new connections: 0, unless a rule says otherwise.

        Args:
            view: the layer as it is before the change, to be read only.
            connections: (2, count) the new connections, sorted.
            topology: the one that they become part of.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (count,) weights of the layer's dtype.
        """
        return torch.zeros(connections.shape[1], dtype=view.dtype, device=connections.device)


@dataclass(frozen=True)
class RandomRegrow(RegrowRule):
    """Grow at random: every set of empty positions is equally likely.

    A position that has just been dropped is empty, and may grow again, as in the authors' code.

    Args:
        init: weights of new connections: `"set_normal"` (N(0, 0.1^2), as in SET),
            `"linear_uniform"`, `"he_uniform"` or `"xavier_uniform"` (Curci et al. 2021),
            `"zeros"`, or an `Initializer`.

    Source: SET, Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3).

    Cost: O(nnz + count), whatever the size of the layer, and what `init` takes to draw.
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
        topology: Topology,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw as `RegrowRule.draw_weights` says."""
        return initializer(self.init).draw(
            connections, topology, dtype=view.dtype, generator=generator
        )


@dataclass(frozen=True)
class GradientRegrow(RegrowRule):
    """Grow at the empty positions with the largest |dL/dw|; new weights are 0.

    The gradient is that of the optimizer step right before the evolution. It is exact: the gradient
    of every position is computed, block by block, and the largest so far are kept. Of equal
    gradients the lowest positions grow. A position that has just been dropped is empty.

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
        return largest_empty_positions(view.captured_gradient(), survivors, count)


@dataclass(frozen=True)
class CandidateGradientRegrow(RegrowRule):
    """Grow at the positions with the largest |dL/dw| among random empty ones; new weights are 0.

    Candidates are drawn without replacement, every set of empty positions equally likely, and the
    gradient is computed at those only.

    Args:
        candidates: number of candidates as a multiple of the layer's nnz, above 0. At least as many
            are drawn as are to grow, and at most as many as are empty. Where all empty positions
            are candidates, the rule chooses as `GradientRegrow` does.

    Raises:
        TypeError: `candidates` is no number.
        ValueError: `candidates` is out of range.

    Source: guided stochastic exploration, Heddes et al. 2024 (arXiv 2401.06898), with its uniform
    distribution of candidates. There they are drawn with replacement.

    Cost: O(candidates nnz batch + out_features) time, O(candidates nnz + out_features) memory.
    """

    gradient_steps = 1

    candidates: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "candidates", _as_candidates(self.candidates))

    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose as `RegrowRule.select` says."""
        gradient = view.captured_gradient()
        pool = _draw_candidates(view, survivors, count, self.candidates, generator)
        magnitudes = gradient.at(pool).abs_().nan_to_num_(nan=0.0, posinf=torch.inf)
        return pool[smallest(-magnitudes, count)]


@dataclass(frozen=True)
class CannistraciHebbRegrow(RandomRegrow):
    """Grow where the topology itself suggests it, among random empty positions.

    No gradient is read. A position (u, v) scores by the paths of length three u - z1 - z2 - v over
    connections that survive: more paths, and units on them with fewer connections to elsewhere,
    score higher (CH3-L3). The highest scores grow; of equal ones, and where there is no path, any,
    equally likely.

    Args:
        init: weights of new connections, as for `RandomRegrow`.
        candidates: number of candidates as a multiple of the layer's nnz, above 0. At least as many
            are drawn as are to grow, and at most as many as are empty; with a large number all
            empty positions are scored, as the authors do.

    Raises:
        TypeError: `candidates` is no number.
        ValueError: `candidates` is out of range.

    Source: Cannistraci-Hebb training, Zhang et al., ICLR 2024, there with all empty positions of a
    masked layer.

    Cost: O(nnz + candidates nnz fan_out fan_in) time with the mean degrees, some 50 nanoseconds a
    path, and O(candidates nnz) memory beside 60 MB of paths: for layers whose units have tens of
    connections. With hundreds, take fewer candidates. `evolution/paths.py` has the score.

    Example:
        >>> import torch_truly_sparse as tts
        >>> layer = tts.TrulySparseLinear(20, 30, density=0.1)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> rule = CannistraciHebbRegrow(candidates=2.0)
        >>> evolution = tts.SparseEvolution(layer, optimizer, regrow=rule, every=None)
        >>> evolution.step().regrown
        18
    """

    candidates: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "candidates", _as_candidates(self.candidates))

    def select(
        self,
        view: LayerView,
        survivors: Tensor,
        count: int,
        *,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Choose as `RegrowRule.select` says."""
        pool = _draw_candidates(view, survivors, count, self.candidates, generator)
        scores = path_scores(survivors, pool, view.out_features, view.in_features)
        # `smallest` takes the first of equal scores, so the candidates come in a random order
        drawn = torch.Generator("cpu").manual_seed(draw_seed(generator))
        shuffled = torch.randperm(len(pool), generator=drawn, device="cpu").to(pool.device)
        chosen = shuffled[smallest(-scores[shuffled], count)]
        return pool[chosen].sort().values


def _as_candidates(value: float) -> float:
    candidates = as_float(value, "candidates")
    if not (candidates > 0 and math.isfinite(candidates)):
        raise ValueError(f"`candidates` must be a finite number above 0, got {candidates}")
    return candidates


def _draw_candidates(
    view: LayerView,
    survivors: Tensor,
    count: int,
    candidates: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw empty positions: `candidates` for each connection, at least `count`, at most all."""
    population = view.out_features * view.in_features
    wanted = max(count, math.ceil(candidates * view.nnz))
    empty = population - len(survivors)
    return random_empty_positions(survivors, population, min(wanted, empty), generator=generator)


@dataclass(frozen=True)
class MomentumRegrow(RegrowRule):
    """Grow at the empty positions with the largest momentum of the gradient; new weights are 0.

    An optimizer of sparse weights keeps no momentum for empty positions, so the rule computes
    `sum of momentum^age dL/dw` over the last `steps` optimizer steps, block by block, from the
    inputs and output gradients of these steps. Together with `MomentumRedistribution` the rule
    makes up sparse momentum.

    Args:
        momentum: factor by which a gradient counts less from step to step, in [0, 1); usually the
            momentum of the optimizer.
        steps: number of steps to look back, at least 1; steps before the last evolution do not
            count. The older steps that are left out would weigh momentum^steps of the whole.

    Raises:
        TypeError: `momentum` is no number, or `steps` no int.
        ValueError: `momentum` or `steps` is out of range.

    Source: sparse momentum, Dettmers and Zettlemoyer 2019 (arXiv 1907.04840), there with the
    momentum of all positions, from dense gradients at every step.

    Cost: `steps` times that of `GradientRegrow`, and the inputs and output gradients of `steps`
    steps in memory.
    """

    momentum: float = 0.9
    steps: int = 10

    def __post_init__(self) -> None:
        momentum = as_float(self.momentum, "momentum")
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must lie in [0, 1), got {momentum}")
        object.__setattr__(self, "momentum", momentum)
        object.__setattr__(self, "steps", as_int(self.steps, "steps", least=1))

    @property
    def gradient_steps(self) -> int:
        """As many as `steps` says."""
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
        gradient = view.captured_gradient(decay=self.momentum)
        return largest_empty_positions(gradient, survivors, count)


_NAMED: dict[str, RegrowRule] = {
    "random": RandomRegrow(),
    "gradient": GradientRegrow(),
    "candidate_gradient": CandidateGradientRegrow(),
    "cannistraci_hebb": CannistraciHebbRegrow(),
    "momentum": MomentumRegrow(),
}


def regrow_rule(given: str | RegrowRule) -> RegrowRule:
    """Look up a regrow rule by name; a rule passes through. Errors: see `as_instance`."""
    return as_instance(given, "regrow", RegrowRule, _NAMED)
