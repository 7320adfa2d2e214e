"""Which weights of a training the members get: the last, the mean of the last, or the best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class LastWeights:
    """The weights as the last epoch leaves them."""

    def after_epoch(self, epoch: int) -> bool:
        """Note the weights after an epoch, counted from 0; true ends the training."""
        return False

    def finish(self) -> None:
        """Give the network the weights that it shall have."""


class MeanWeights(LastWeights):
    """The mean of the weights after each of the last epochs; the topology is the same in all.

    Args:
        network: whose parameters are averaged.
        first: the first epoch that counts.
    """

    def __init__(self, network: nn.Module, first: int) -> None:
        self._network, self._first = network, first
        self._sums: list[Tensor] = []
        self._epochs = 0

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> bool:
        """Add the weights to the sums."""
        if epoch < self._first:
            return False
        parameters = [p.double() for p in self._network.parameters()]
        sums = self._sums or [torch.zeros_like(parameter) for parameter in parameters]
        self._sums = [s + p for s, p in zip(sums, parameters, strict=True)]
        self._epochs += 1
        return False

    @torch.no_grad()
    def finish(self) -> None:
        """Write the means into the parameters."""
        if self._epochs:
            for parameter, total in zip(self._network.parameters(), self._sums, strict=True):
                parameter.copy_(total / self._epochs)


class BestWeights(LastWeights):
    """The weights, and the topology, of the epoch in which a loss was least.

    Args:
        network: whose state is kept.
        loss: computes the loss of samples that are not trained on.
        patience: training ends so many epochs after the best one.
    """

    def __init__(self, network: nn.Module, loss: Callable[[], float], patience: int) -> None:
        self._network, self._loss, self._patience = network, loss, patience
        self._least, self._best = math.inf, -1
        self._state: dict[str, Any] | None = None

    @torch.no_grad()
    def after_epoch(self, epoch: int) -> bool:
        """Keep the state if the loss is the least so far."""
        loss = self._loss()
        if loss < self._least:
            self._least, self._best = loss, epoch
            self._state = copy.deepcopy(self._network.state_dict())
        return epoch - self._best >= self._patience

    def finish(self) -> None:
        """Load the best state."""
        if self._state is not None:
            self._network.load_state_dict(self._state)


def hold_out(targets: Tensor, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose samples that are not trained on, evenly over the targets.

    Args:
        targets: (samples, outputs).
        share: of the samples; at least one is held out, and at least one is not.
        generator: draws among samples of equal targets.

    Returns:
        The numbers of the other samples, increasing, and of those held out.

    Raises:
        ValueError: there are fewer than two samples.
    """
    samples = len(targets)
    if samples < 2:
        raise ValueError(f"`held_out` needs 2 samples or more, got {samples}")
    count = min(max(1, round(share * samples)), samples - 1)
    order = torch.randperm(samples, generator=generator)
    _, group = torch.unique(targets, dim=0, return_inverse=True)  # sorted by the first output
    order = order[group[order].argsort(stable=True)]
    places = ((torch.arange(count) + 0.5) * samples / count).long()
    held = order[places]
    trained = torch.ones(samples, dtype=torch.bool)
    trained[held] = False
    return trained.nonzero()[:, 0], held
