"""Building, training and evolving the network; an ordinary PyTorch loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from microarray_study.errors import RunError
from microarray_study.measuring import PeakMemory
from microarray_study.splits import Parts
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import torch_truly_sparse as tts
from million_neurons_study.settings import Layer, Settings


@dataclass(frozen=True)
class Epoch:
    """One epoch; `evolution_seconds` is None for the last, after which nothing evolves."""

    loss: float
    training_seconds: float
    evolution_seconds: float | None
    replaced: int


@dataclass(frozen=True)
class Outcome:
    """All figures of a run."""

    neurons: int
    weights: int
    steps: int  # of an epoch
    building_seconds: float
    epochs: list[Epoch]
    accuracy: float
    peak_bytes: int | None  # above what the process held before, with all libraries imported

    def as_dict(self) -> dict[str, object]:
        """Return plain numbers, fit for JSON."""
        return asdict(self)


def build_network(settings: Settings) -> nn.Sequential:
    """Build an MLP with ReLU, sparse but for layers that would be nearly full."""
    generator = torch.Generator().manual_seed(settings.seed)
    layers: list[nn.Module] = []
    for layer in settings.layers():
        layers += [build_layer(layer, settings.init, generator), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def build_layer(layer: Layer, init: str, generator: torch.Generator) -> nn.Module:
    """Build a layer; the distribution of its weights is the same, sparse or dense."""
    if not layer.is_dense:
        return tts.TrulySparseLinear(
            layer.inputs, layer.outputs, nnz=layer.weights, init=init, generator=generator
        )
    dense: nn.Linear = nn.utils.skip_init(nn.Linear, layer.inputs, layer.outputs)
    if init == "set_normal":
        nn.init.normal_(dense.weight, std=0.1, generator=generator)
    else:
        nn.init.kaiming_uniform_(dense.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(dense.bias)
    return dense


def build_optimizer(network: nn.Module, settings: Settings) -> torch.optim.SGD:
    """Build the optimizer: ours updates within the backward pass, torch's after it."""
    chosen: dict[str, Any] = {
        "lr": settings.rate,
        "momentum": settings.momentum,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "tts":
        return tts.optim.SGD(network.parameters(), **chosen)
    return torch.optim.SGD(network.parameters(), **chosen, fused=True)


def run(settings: Settings, parts: Parts, on_step: Callable[[float | None], None]) -> Outcome:
    """Build the network and train it; `on_step` gets the loss of each step, and None in tests."""
    warm_up(settings)
    with PeakMemory() as memory:
        started = time.perf_counter()
        network = build_network(settings)
        building_seconds = time.perf_counter() - started
        loader = batches(parts, settings)
        optimizer = build_optimizer(network, settings)
        evolution = tts.SparseEvolution(
            network,
            optimizer,
            prune=tts.rules.SignSplitMagnitude(),
            regrow=tts.rules.RandomRegrow(settings.regrow_init),
            fraction=settings.fraction,
            generator=torch.Generator().manual_seed(settings.seed),
        )
        epochs = []
        for number in range(1, settings.epochs + 1):
            started = time.perf_counter()
            loss = train_epoch(network, optimizer, loader, on_step)
            trained = time.perf_counter()
            if not torch.isfinite(torch.tensor(loss)):
                raise RunError(
                    f"diverged in epoch {number}: the loss is {loss}; lower --lr "
                    f"(now {settings.rate:g})"
                )
            # By hand, so that its time stands apart; `every=len(loader)` would do the same.
            record = evolution.step() if number < settings.epochs else None
            evolved = time.perf_counter() - trained if record else None
            replaced = record.regrown if record else 0
            epochs.append(Epoch(loss, trained - started, evolved, replaced))
        accuracy = tested(network, parts, settings.batch_size, on_step)
    return Outcome(
        neurons=settings.neurons,
        weights=sum(layer.weights for layer in settings.layers()),
        steps=len(loader),
        building_seconds=building_seconds,
        epochs=epochs,
        accuracy=accuracy,
        peak_bytes=memory.added_bytes,
    )


def warm_up(settings: Settings) -> None:
    """Train and evolve a tiny network, so that torch loads what it loads on first use.

    Thread pools, autograd and kernels are some megabytes that belong to no network.
    """
    network = build_network(replace(settings, inputs=30, hidden=40, hidden_layers=2, epsilon=2.0))
    optimizer = build_optimizer(network, settings)
    loss = F.cross_entropy(network(torch.zeros(2, 30)), torch.zeros(2, dtype=torch.int64))
    loss.backward()
    optimizer.step()
    tts.SparseEvolution(network, optimizer).step()


def batches(parts: Parts, settings: Settings) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Make shuffled batches of one size: 67 of 2 from 135 samples, as in the reference."""
    data = TensorDataset(
        torch.from_numpy(parts.train_features), torch.from_numpy(parts.train_labels)
    )
    generator = torch.Generator().manual_seed(settings.seed)
    return DataLoader(data, settings.batch_size, shuffle=True, drop_last=True, generator=generator)


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[tuple[torch.Tensor, ...]],
    on_step: Callable[[float | None], None],
) -> float:
    """Train on all training samples once; return the mean loss."""
    network.train()
    total = 0.0
    for features, labels in loader:
        optimizer.zero_grad(set_to_none=False)  # the memory of gradients is used again
        loss = F.cross_entropy(network(features), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
        on_step(loss.item())
    return total / len(loader)


@torch.no_grad()
def tested(
    network: nn.Module, parts: Parts, batch_size: int, on_step: Callable[[float | None], None]
) -> float:
    """Return the share of test samples whose class gets the largest output."""
    network.eval()
    right = 0
    for start in range(0, len(parts.test_labels), batch_size):
        features = torch.from_numpy(parts.test_features[start : start + batch_size])
        labels = torch.from_numpy(parts.test_labels[start : start + batch_size])
        right += int((network(features).argmax(1) == labels).sum())
        on_step(None)
    return right / len(parts.test_labels)
