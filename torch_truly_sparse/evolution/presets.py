"""The methods of the literature, each under its name and with its paper's settings."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from .gradient_regrow import GradientRegrow, MomentumRegrow
from .prune import MagnitudeGradientPrune, MagnitudePrune, SignSplitMagnitude
from .redistribution import MomentumRedistribution
from .regrow import RandomRegrow
from .schedules import Cosine, Linear
from .sparse_evolution import SparseEvolution


def set_evolution(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    every: int,
    fraction: float = 0.3,
    exclude: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> SparseEvolution:
    """Sparse Evolutionary Training: each epoch drop the weights closest to zero, grow at random.

    `SignSplitMagnitude`, `RandomRegrow("set_normal")`, 30 % each epoch and never after the last.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`.
        every: optimizer steps in an epoch, len(loader).
        fraction: share of the connections to replace.
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Source: SET, Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3). Their code leaves the output
    layer alone: name it in `exclude`, or make it dense.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> set_evolution(model, optimizer, every=100).fraction
        Constant(fraction=0.3)
    """
    return SparseEvolution(
        model,
        optimizer,
        prune=SignSplitMagnitude(),
        regrow=RandomRegrow("set_normal"),
        fraction=fraction,
        every=every,
        exclude=exclude,
        generator=generator,
    )


def rigl(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    total_steps: int,
    every: int = 100,
    fraction: float = 0.3,
    end: float = 0.75,
    exclude: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> SparseEvolution:
    """RigL: drop the smallest weights, grow where the gradient is the largest.

    `MagnitudePrune`, `GradientRegrow`, every 100 steps, 30 % falling to 0 as a cosine until 75 % of
    the training are over.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`.
        total_steps: optimizer steps of the whole training.
        every: optimizer steps between evolutions.
        fraction: share of the connections to replace at first.
        end: share of the training after which nothing is replaced, in (0, 1].
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Raises:
        ValueError: `end` is out of range.

    Source: Evci et al. 2020, "Rigging the lottery" (arXiv 1911.11134). A dropped connection that
    comes straight back starts at 0 here; in their code it keeps its weight. Their update takes
    the place of an optimizer step, ours follows one.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> rigl(model, optimizer, total_steps=1000).fraction
        Cosine(fraction=0.3, end=750)
    """
    stop = _part_of(total_steps, end)
    return SparseEvolution(
        model,
        optimizer,
        prune=MagnitudePrune(),
        regrow=GradientRegrow(),
        fraction=Cosine(fraction, stop),
        every=every,
        stop=stop,
        exclude=exclude,
        generator=generator,
    )


def mest(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    total_steps: int,
    every: int,
    fraction: float = 0.3,
    gradient_weight: float = 1.0,
    end: float = 0.75,
    exclude: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> SparseEvolution:
    """MEST with elastic mutation: drop the smallest `|w| + lambda |g|`, grow at random from 0.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`.
        total_steps: optimizer steps of the whole training.
        every: optimizer steps between evolutions; 5 epochs in their code.
        fraction: share of the connections to replace at first.
        gradient_weight: lambda.
        end: share of the training after which nothing is replaced, in (0, 1].
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Raises:
        ValueError: `end` or `gradient_weight` is out of range.

    Source: Yuan et al. 2021 (arXiv 2110.14032). There the share that mutates falls in a few steps
    set by hand; here it falls linearly. Without their soft memory bound, which grows before it
    prunes, and their selection of training data.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> mest(model, optimizer, total_steps=1000, every=50).prune
        MagnitudeGradientPrune(gradient_weight=1.0)
    """
    stop = _part_of(total_steps, end)
    return SparseEvolution(
        model,
        optimizer,
        prune=MagnitudeGradientPrune(gradient_weight),
        regrow=RandomRegrow("zeros"),
        fraction=Linear(fraction, stop),
        every=every,
        stop=stop,
        exclude=exclude,
        generator=generator,
    )


def sparse_momentum(
    model: nn.Module,
    optimizer: Optimizer,
    *,
    total_steps: int,
    every: int,
    fraction: float = 0.5,
    momentum: float = 0.9,
    steps: int = 10,
    exclude: Iterable[str] = (),
    generator: torch.Generator | None = None,
) -> SparseEvolution:
    """Sparse momentum: growth and its share among the layers both follow the momentum.

    `MagnitudePrune`, `MomentumRedistribution`, `MomentumRegrow`, 50 % falling to 0 as a cosine over
    the whole training. Layers change their number of connections; the network keeps its own.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`; it must keep momentum.
        total_steps: optimizer steps of the whole training.
        every: optimizer steps in an epoch, len(loader).
        fraction: share of the connections to replace at first.
        momentum: that of the optimizer.
        steps: how many steps of momentum the growth looks back; see `MomentumRegrow`.
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Source: Dettmers and Zettlemoyer 2019 (arXiv 1907.04840), with the momentum of dense gradients
    over all steps.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> sparse_momentum(model, optimizer, total_steps=1000, every=100).regrow
        MomentumRegrow(momentum=0.9, steps=10)
    """
    return SparseEvolution(
        model,
        optimizer,
        prune=MagnitudePrune(),
        regrow=MomentumRegrow(momentum, steps),
        redistribute=MomentumRedistribution(),
        fraction=Cosine(fraction, total_steps),
        every=every,
        exclude=exclude,
        generator=generator,
    )


def _part_of(total_steps: int, end: float) -> int:
    if not 0 < end <= 1:
        raise ValueError(f"`end` must lie in (0, 1], got {end}")
    return max(round(end * total_steps), 1)
