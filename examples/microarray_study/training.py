"""A plain PyTorch training loop; a sparse network adds one line to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import torch_truly_sparse as tts
from microarray_study.errors import RunError
from microarray_study.networks import INIT
from microarray_study.settings import Settings
from microarray_study.splits import Parts


@dataclass
class Curves:
    """One entry for each epoch."""

    train_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of training alone, without the test


def train(
    network: nn.Module,
    parts: Parts,
    settings: Settings,
    seed: int,
    on_epoch: Callable[[Curves], None],
) -> tuple[Curves, tts.SparseEvolution | None]:
    """Train on the training part, and after each epoch test on the test part."""
    inputs, targets = torch.from_numpy(parts.train_features), torch.from_numpy(parts.train_labels)
    loader = DataLoader(
        TensorDataset(inputs, targets),
        batch_size=settings.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        fused=True,  # one pass over the weights; the dense networks gain the most by it
    )
    evolution = evolve_each_epoch(network, optimizer, len(loader), settings, seed)

    curves = Curves()
    for epoch in range(settings.epochs):
        network.train()
        started = time.perf_counter()
        total_loss = 0.0
        for features, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(features), labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item() * len(labels)
        curves.seconds.append(time.perf_counter() - started)

        curves.train_loss.append(total_loss / len(targets))
        curves.test_accuracy.append(accuracy(network, parts))
        if not torch.isfinite(torch.tensor(total_loss)):
            raise RunError(
                f"diverged in epoch {epoch + 1}: the loss is {total_loss}; lower --lr "
                f"(now {settings.lr:g})"
            )
        on_epoch(curves)
    return curves, evolution


def evolve_each_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int,
    settings: Settings,
    seed: int,
) -> tts.SparseEvolution | None:
    """Evolve by SET: each epoch drops the weights closest to 0 and connects random positions.

    It hooks itself on the optimizer, and so the training loop stays what it is. A network without
    sparse layers has nothing to evolve.
    """
    if not any(isinstance(m, tts.TrulySparseLinear | tts.MaskedLinear) for m in network.modules()):
        return None
    return tts.SparseEvolution(
        network,
        optimizer,
        prune=tts.rules.SignSplitMagnitude(),
        regrow=tts.rules.RandomRegrow(INIT),
        fraction=settings.fraction,
        every=steps_per_epoch,
        generator=torch.Generator().manual_seed(seed),
    )


def evolution_summary(evolution: tts.SparseEvolution | None) -> dict[str, int] | None:
    """Return how often a network evolved, and how many connections were replaced in all."""
    if evolution is None:
        return None
    replaced = sum(record.regrown for record in evolution.history)
    return {"evolutions": len(evolution.history), "replaced": replaced}


@torch.no_grad()
def accuracy(network: nn.Module, parts: Parts) -> float:
    """Return the share of test samples whose class gets the largest output."""
    network.eval()
    predicted = network(torch.from_numpy(parts.test_features)).argmax(dim=1)
    return float((predicted == torch.from_numpy(parts.test_labels)).float().mean())
