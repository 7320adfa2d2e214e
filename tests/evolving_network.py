"""A small network that evolves, and all that an evolution could touch of it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse.rules import LayerView

LAYERS = (tts.TrulySparseLinear, tts.MaskedLinear)
both_twins = pytest.mark.parametrize("layer_type", LAYERS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(
    layer_type: type[tts.nn.SparseLayer] = tts.TrulySparseLinear, scale: int = 1, seed: int = 0
) -> nn.Sequential:
    generator = seeded(seed)
    return nn.Sequential(
        layer_type(12 * scale, 20 * scale, density=0.3, generator=generator),
        nn.ReLU(),
        layer_type(20 * scale, 5 * scale, density=0.4, generator=generator),
    )


def sgd(model: nn.Module, **settings: Any) -> optim.Optimizer:
    return optim.SGD(model.parameters(), lr=0.05, momentum=0.9, **settings)


def train_step(model: nn.Module, optimizer: optim.Optimizer, seed: int = 0) -> None:
    x = torch.randn(16, next(model.modules())[0].in_features, generator=seeded(seed))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


def view(
    layer: tts.nn.SparseLayer, optimizer: optim.Optimizer | None = None, **more: Any
) -> LayerView:
    return LayerView("layer", layer, optimizer, **more)


def view_of(weights: Tensor) -> LayerView:
    """A layer of one unit with these weights."""
    layer = tts.TrulySparseLinear(len(weights), 1, nnz=len(weights), dtype=weights.dtype)
    layer.values.data.copy_(weights)
    return view(layer)


def positions(layer: tts.nn.SparseLayer) -> list[int]:
    return layer.topology.positions().tolist()


def everything(model: nn.Module, optimizer: optim.Optimizer) -> list[Tensor]:
    """Copy all that an evolution could touch."""
    state = [entry for held in optimizer.state.values() for entry in held.values()]
    gradients = [parameter.grad for parameter in model.parameters()]
    tensors = [*model.state_dict().values(), *gradients, *state]
    return [tensor.clone() for tensor in tensors if isinstance(tensor, Tensor)]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))
