"""The training loop of the estimators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..evolution.sparse_evolution import SparseEvolution
from ..rules import RandomRegrow
from .ensemble import SparseEnsemble
from .kept_weights import BestWeights, LastWeights, MeanWeights, hold_out
from .recipe import Recipe
from .rows import Batch, Rows

Loss = Callable[[Tensor, Tensor], Tensor]  # of outputs and sample numbers, one for each member


@dataclass(frozen=True)
class Schedule:
    """How long an ensemble is trained, and how fast it learns.

    Args:
        epochs: times that each sample is seen.
        batch_size: samples of a step.
        learning_rate: of AdamW at the start; it falls to 0 along half a cosine.
        input_dropout: share of the inputs left out of each step, drawn for each sample.
        evolution: how new connections are chosen: `"set"` (at random), `"gradient"`, or None.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    input_dropout: float
    evolution: str | None


def train(
    ensemble: SparseEnsemble,
    rows: Rows,
    loss: Loss,
    targets: Tensor,
    schedule: Schedule,
    recipe: Recipe,
    generator: torch.Generator,
    after_epoch: Callable[[float], bool],
) -> list[float]:
    """Train all members side by side, on the same batches and with the same inputs left out.

    Args:
        ensemble: changed in place.
        rows: the scaled samples.
        loss: the loss of each member.
        targets: (samples, outputs), by which samples are held out evenly.
        schedule: how long and how fast.
        recipe: all else.
        generator: source of batches, dropout and evolution.
        after_epoch: called with the mean loss of each epoch; true ends the training.

    Returns:
        The mean loss of each epoch.
    """
    trained = torch.arange(rows.samples)
    kept: LastWeights = LastWeights()
    if recipe.held_out > 0:
        trained, held = hold_out(targets, recipe.held_out, generator)
        kept = BestWeights(ensemble, _loss_of(ensemble, rows, loss, held), recipe.patience)
    elif recipe.weight_average > 0:
        averaged = max(1, round(recipe.weight_average * schedule.epochs))
        kept = MeanWeights(ensemble, schedule.epochs - averaged)
    batches = math.ceil(len(trained) / schedule.batch_size)
    steps = schedule.epochs * batches
    optimizer = torch.optim.AdamW(
        ensemble.parameters(),
        lr=schedule.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    evolution = _evolve(ensemble, optimizer, schedule, recipe, batches, generator)
    batch = _whole(rows) if schedule.evolution == "gradient" else rows.batch
    losses: list[float] = []
    try:
        for epoch in range(schedule.epochs):
            order = trained[torch.randperm(len(trained), generator=generator)]
            total = 0.0
            for number, picked in enumerate(order.split(schedule.batch_size)):
                done = (epoch * batches + number) / steps
                rate = schedule.learning_rate * (1 + math.cos(math.pi * done)) / 2
                optimizer.param_groups[0]["lr"] = rate
                input, columns = batch(picked)
                input = drop_inputs(input, schedule.input_dropout, generator)
                units = _hidden_dropout(ensemble, len(picked), recipe.dropout, generator)
                value = loss(ensemble(input, columns, units), picked).sum()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                total += value.item() * len(picked)
            losses.append(total / (len(trained) * ensemble.members))
            enough = kept.after_epoch(epoch)
            if after_epoch(losses[-1]) or enough:
                break
    finally:
        if evolution is not None:
            evolution.remove()
    kept.finish()
    return losses


def _loss_of(
    ensemble: SparseEnsemble, rows: Rows, loss: Loss, samples: Tensor
) -> Callable[[], float]:
    """Return what computes the mean loss of some samples over all members, without dropout."""
    input, columns = rows.batch(samples)
    return lambda: loss(ensemble(input, columns), samples).mean().item()


def _whole(rows: Rows) -> Callable[[Tensor], Batch]:
    """Make batches of all features: growth by gradient looks for connections of any of them."""
    return lambda picked: Batch(rows.whole(picked), None)


def _evolve(
    ensemble: SparseEnsemble,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    recipe: Recipe,
    batches: int,
    generator: torch.Generator,
) -> SparseEvolution | None:
    """Hook evolution on the optimizer; new connections start at zero."""
    if schedule.evolution is None:
        return None
    regrow: Any = "gradient" if schedule.evolution == "gradient" else RandomRegrow("zeros")
    return SparseEvolution(
        ensemble,
        optimizer,
        prune="magnitude",
        regrow=regrow,
        fraction=recipe.fraction,
        every=recipe.evolve_every * batches,
        stop=int(recipe.evolve_until * schedule.epochs * batches),
        generator=generator,
    )


def drop_inputs(input: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Set each entry to 0 with probability round(256 share) / 256, and scale up the others.

    One random byte decides about each entry, which takes an eighth of the time of a random float.
    """
    least = round(256 * share)
    if least == 0:
        return input
    words = torch.empty((input.numel() + 7) // 8, dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)  # None: up to the largest int64
    bytes_ = words.view(torch.uint8)[: input.numel()].view_as(input)
    return input * (bytes_ >= least).to(input.dtype).mul_(256 / (256 - least))


def _hidden_dropout(
    ensemble: SparseEnsemble, batch: int, share: float, generator: torch.Generator
) -> Tensor | None:
    if share == 0:
        return None
    ones = torch.ones(batch, ensemble.members, ensemble.hidden, dtype=torch.float32)
    return drop_inputs(ones, share, generator)
