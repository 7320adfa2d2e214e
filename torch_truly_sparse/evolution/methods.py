"""The methods of the literature, each under its name and with its paper's settings."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from .._arguments import as_float, as_int
from ..schedules import Cosine, Linear
from .prune import MagnitudeGradientPrune, MagnitudePrune, SignSplitMagnitude
from .redistribution import MomentumRedistribution
from .regrow import GradientRegrow, MomentumRegrow, RandomRegrow
from .sparse_evolution import SparseEvolution


class SET(SparseEvolution):
    """Sparse Evolutionary Training: each epoch drop the weights closest to zero, grow at random.

    A `SparseEvolution` with `SignSplitMagnitude`, `RandomRegrow("set_normal")`, 30 % of the
    connections each epoch, and no evolution after the last epoch.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`.
        every: optimizer steps in an epoch, len(loader).
        fraction: share of the connections to replace, in [0, 1].
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Raises:
        TypeError, ValueError: as for `SparseEvolution`.

    Source: SET, Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3). Their code leaves the output
    layer alone: name it in `exclude`, or make it dense.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> SET(model, optimizer, every=100).fraction
        Constant(fraction=0.3)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int,
        fraction: float = 0.3,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(
            model,
            optimizer,
            prune=SignSplitMagnitude(),
            regrow=RandomRegrow("set_normal"),
            fraction=fraction,
            every=every,
            exclude=exclude,
            generator=generator,
        )


class RigL(SparseEvolution):
    """RigL: drop the smallest weights, grow where the gradient is the largest.

    A `SparseEvolution` with `MagnitudePrune` and `GradientRegrow`, every 100 steps, with 30 % of
    the connections at first, falling to 0 as a cosine until 75 % of the training are over.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`.
        total_steps: optimizer steps of the whole training, at least 1.
        every: optimizer steps between evolutions.
        fraction: share of the connections to replace at first, in [0, 1].
        end: share of the training after which nothing is replaced, in (0, 1].
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Raises:
        TypeError, ValueError: `total_steps` or `end` is out of range or no number, and as for
            `SparseEvolution`.

    Source: Evci et al. 2020, "Rigging the lottery" (arXiv 1911.11134). A dropped connection that
    comes straight back starts at 0 here; in their code it keeps its weight. Their update takes
    the place of an optimizer step, ours follows one.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> RigL(model, optimizer, total_steps=1000).fraction
        Cosine(fraction=0.3, end=750)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        total_steps: int,
        every: int = 100,
        fraction: float = 0.3,
        end: float = 0.75,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        stop = _part_of(total_steps, end)
        super().__init__(
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


class MEST(SparseEvolution):
    """MEST with elastic mutation: drop the smallest `|w| + lambda |g|`, grow at random from 0.

    A `SparseEvolution` with `MagnitudeGradientPrune` and `RandomRegrow("zeros")`; the share of the
    connections that is replaced falls linearly to 0 until 75 % of the training are over.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`.
        total_steps: optimizer steps of the whole training, at least 1.
        every: optimizer steps between evolutions; 5 epochs in their code.
        fraction: share of the connections to replace at first, in [0, 1].
        gradient_weight: lambda, at least 0.
        end: share of the training after which nothing is replaced, in (0, 1].
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Raises:
        TypeError, ValueError: `total_steps`, `end` or `gradient_weight` is out of range or no
            number, and as for `SparseEvolution`.

    Source: Yuan et al. 2021 (arXiv 2110.14032). There the share that mutates falls in a few steps
    set by hand; here it falls linearly. Without their soft memory bound, which grows before it
    prunes, and their selection of training data.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> MEST(model, optimizer, total_steps=1000, every=50).prune
        MagnitudeGradientPrune(gradient_weight=1.0)
    """

    def __init__(
        self,
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
    ) -> None:
        stop = _part_of(total_steps, end)
        super().__init__(
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


class SparseMomentum(SparseEvolution):
    """Sparse momentum: growth and its share among the layers both follow the momentum.

    A `SparseEvolution` with `MagnitudePrune`, `MomentumRedistribution` and `MomentumRegrow`, with
    50 % of the connections at first, falling to 0 as a cosine over the whole training. Layers
    change their number of connections; the network keeps its own.

    Args:
        model: as for `SparseEvolution`.
        optimizer: as for `SparseEvolution`; it must keep momentum.
        total_steps: optimizer steps of the whole training, at least 1.
        every: optimizer steps in an epoch, len(loader).
        fraction: share of the connections to replace at first, in [0, 1].
        momentum: that of the optimizer, in [0, 1).
        steps: how many steps of momentum the growth looks back, at least 1; see `MomentumRegrow`.
        exclude: as for `SparseEvolution`.
        generator: as for `SparseEvolution`.

    Raises:
        TypeError, ValueError: `total_steps`, `momentum` or `steps` is out of range or no number,
            and as for `SparseEvolution`.

    Source: Dettmers and Zettlemoyer 2019 (arXiv 1907.04840), with the momentum of dense gradients
    over all steps.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> SparseMomentum(model, optimizer, total_steps=1000, every=100).regrow
        MomentumRegrow(momentum=0.9, steps=10)
    """

    def __init__(
        self,
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
    ) -> None:
        super().__init__(
            model,
            optimizer,
            prune=MagnitudePrune(),
            regrow=MomentumRegrow(momentum, steps),
            redistribute=MomentumRedistribution(),
            fraction=Cosine(fraction, _part_of(total_steps, 1.0)),
            every=every,
            exclude=exclude,
            generator=generator,
        )


def _part_of(total_steps: int, end: float) -> int:
    """Return the optimizer step at which a share of the training is over, at least 1."""
    total_steps, end = as_int(total_steps, "total_steps", least=1), as_float(end, "end")
    if not 0 < end <= 1:
        raise ValueError(f"`end` must lie in (0, 1], got {end}")
    return max(round(end * total_steps), 1)
