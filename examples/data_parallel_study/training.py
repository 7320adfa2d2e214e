"""The two phases, as each rank goes through them: ordinary PyTorch loops."""

from __future__ import annotations

import copy
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import torch_truly_sparse as tts
from data_parallel_study.data import Samples, generate
from data_parallel_study.settings import Settings


@dataclass(frozen=True)
class Job:
    """The settings of a training, and what each rank does besides training."""

    settings: Settings
    folder: Path | None = None  # of the checkpoints
    save: Path | None = None  # where the merged network goes
    kill_after: int | None = None  # the last rank dies after so many epochs


def run(job: Job) -> None:
    """Train on this rank, in the process group that is there; rank 0 prints."""
    settings, rank, ranks = job.settings, dist.get_rank(), dist.get_world_size()
    train, test = generate(settings)
    torch.manual_seed(settings.seed + rank)

    # Phase 1: one network with one evolving topology; each rank sees its part of each batch.
    model = DistributedDataParallel(tts.distributed.prepare(build(settings)))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings.rate, momentum=settings.momentum, fused=True
    )
    steps = settings.samples // settings.batch_size
    evolution = evolving(model, optimizer, settings, steps, settings.seed)
    say(f"phase 1: {ranks} ranks train one network")
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "evolution": evolution}
    together = range(1, settings.epochs_together + 1)
    seconds = train_phase(job, train, parts, together, name="epoch_", keep=2)
    say(f"phase 1: {seconds:.1f} s, accuracy {accuracy(model.module, test):.3f}")

    # Phase 2: each rank trains and evolves a copy of its own on its part of the samples.
    own = tts.distributed.release(copy.deepcopy(model.module))
    own_optimizer = torch.optim.SGD(own.parameters(), lr=settings.rate, fused=True)
    own_optimizer.load_state_dict(optimizer.state_dict())
    evolution = evolving(own, own_optimizer, settings, steps, settings.seed + 1 + rank)
    say("phase 2: each rank trains a copy of its own; losses of rank 0")
    parts = {"model": own, "optimizer": own_optimizer, "evolution": evolution}
    apart = range(settings.epochs_together + 1, settings.epochs + 1)
    seconds = train_phase(job, train, parts, apart, name=f"rank_{rank}_epoch_", keep=1)
    say(f"phase 2: {seconds:.1f} s, accuracy of each copy {everyone(accuracy(own, test))}")

    # The copies become one network again.
    started = time.perf_counter()
    tts.distributed.merge_ranks(own)
    seconds = time.perf_counter() - started
    say(f"merged: {seconds:.2f} s, accuracy {accuracy(own, test):.3f}")
    if job.save is not None and rank == 0:
        tts.checkpoint.save(job.save, model=own)


def train_phase(
    job: Job, train: Samples, parts: dict[str, Any], epochs: range, *, name: str, keep: int
) -> float:
    """Train and evolve to the end of a phase, from its newest checkpoint if there is one.

    Args:
        job: says where the checkpoints are, and when to die.
        train: the samples of all ranks.
        parts: `model`, `optimizer` and `evolution`.
        epochs: of this phase.
        name: of the checkpoints, before the number of the epoch.
        keep: how many of them to keep.

    Returns:
        Seconds of training, those before the checkpoint included.
    """
    rank, ranks = dist.get_rank(), dist.get_world_size()
    done, seconds = epochs.start - 1, 0.0
    saved = None if job.folder is None else tts.checkpoint.newest(job.folder / f"{name}*.pt")
    if saved is not None:
        progress = tts.checkpoint.resume(saved, **parts)
        done, seconds = progress["epoch"], progress["seconds"]
        say(f"  going on from {saved.name}")
    for epoch in range(done + 1, epochs.stop):
        started = time.perf_counter()
        own = batches(train, job.settings, epoch, rank, ranks)
        loss = train_epoch(parts["model"], parts["optimizer"], own)
        seconds += time.perf_counter() - started
        say(f"  epoch {epoch}: loss {loss:.3f}")
        if job.folder is not None:
            path = job.folder / f"{name}{epoch}.pt"
            tts.checkpoint.save(path, **parts, keep=keep, epoch=epoch, seconds=seconds)
        die_if_asked(job, epoch)
    parts["evolution"].remove()
    return seconds


def build(settings: Settings) -> nn.Sequential:
    """Build an MLP; its last layer is dense, as it would be nearly full."""
    generator = torch.Generator().manual_seed(settings.seed)
    sizes = [settings.features, settings.hidden, settings.hidden]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [
            tts.TrulySparseLinear(inputs, outputs, epsilon=settings.epsilon, generator=generator),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Linear(settings.hidden, settings.classes))


def evolving(
    model: nn.Module, optimizer: torch.optim.Optimizer, settings: Settings, every: int, seed: int
) -> tts.SparseEvolution:
    """Evolve once an epoch, never after the last."""
    regrow = (
        tts.rules.RandomRegrow("linear_uniform") if settings.regrow == "random" else settings.regrow
    )
    return tts.SparseEvolution(
        model,
        optimizer,
        regrow=regrow,
        fraction=settings.fraction,
        every=every,
        generator=torch.Generator().manual_seed(seed),
    )


def batches(
    samples: Samples, settings: Settings, epoch: int, rank: int, ranks: int
) -> Iterator[Samples]:
    """Give this rank's part of each batch of an epoch, shuffled in the same way on all ranks."""
    generator = torch.Generator().manual_seed(1_000 * settings.seed + epoch)
    order = torch.randperm(len(samples), generator=generator)
    for start in range(0, len(samples) - settings.batch_size + 1, settings.batch_size):
        yield samples.of(order[start : start + settings.batch_size][rank::ranks])


def train_epoch(
    model: nn.Module, optimizer: torch.optim.Optimizer, parts: Iterator[Samples]
) -> float:
    """Train on this rank's part of the samples once; return the mean loss of the rank."""
    model.train()
    losses = []
    for part in parts:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(part.features), part.classes)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses) / len(losses)


@torch.no_grad()
def accuracy(model: nn.Module, test: Samples) -> float:
    """Return the share of test samples whose class gets the largest output."""
    model.eval()
    return float((model(test.features).argmax(1) == test.classes).float().mean())


def everyone(number: float) -> str:
    """Return, on all ranks, the number that each rank gives."""
    numbers = [torch.zeros(1) for _ in range(dist.get_world_size())]
    dist.all_gather(numbers, torch.tensor([number]))
    return ", ".join(f"{float(each):.3f}" for each in numbers)


def say(text: str) -> None:
    """Print on rank 0."""
    if dist.get_rank() == 0:
        print(text, flush=True)


def die_if_asked(job: Job, epoch: int) -> None:
    """Kill the last rank, as a failing machine would."""
    if epoch == job.kill_after and dist.get_rank() == dist.get_world_size() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
