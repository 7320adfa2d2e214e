"""Layers and training: the same bits for any number of threads. For operators see laws.py."""

from __future__ import annotations

import pytest
import torch
from oracles import same_bits
from torch import Tensor

import torch_truly_sparse as tts


def _built_layer() -> list[Tensor]:
    layer = tts.TrulySparseLinear(700, 600, nnz=30_000, generator=torch.Generator().manual_seed(1))
    return [layer.indices, layer.values]


def _trained_network() -> list[Tensor]:
    # 30,000 weights and 30 x 600 activations: torch itself runs such sizes in one thread.
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(
        tts.TrulySparseLinear(700, 600, nnz=30_000, generator=generator),
        torch.nn.ReLU(),
        tts.TrulySparseLinear(600, 500, nnz=10_000, generator=generator),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x, target = torch.randn(30, 700), torch.randn(30, 500)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) - target).square().sum().backward()
        optimizer.step()
    return list(model.state_dict().values())


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("work", [_built_layer, _trained_network])
def test_construction_and_training(work):
    results = []
    for threads in 1, 2, 5:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        results.append(work())
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


# out_features, in_features, batch: the ways that the products take (csrc/bindings/plan.h).
LARGE = [(700, 900, 1), (700, 900, 2), (3000, 2500, 2), (700, 900, 33), (700, 900, 100),
         (300, 400, 700), (4000, 300, 300), (60, 9000, 40), (100_000, 300, 64),
         (50_000, 40_000, 2)]  # fmt: skip


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("size", LARGE, ids=str)
def test_forward_and_backward_of_a_layer(size):
    out, in_, batch = size
    layer = tts.TrulySparseLinear(
        in_, out, nnz=min(out * in_ // 5, 400_000), generator=torch.Generator().manual_seed(1)
    )
    g = torch.Generator().manual_seed(2)
    x, dy = torch.randn(batch, in_, generator=g), torch.randn(batch, out, generator=g)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        leaf = x.clone().requires_grad_()
        layer.zero_grad()
        y = layer(leaf)
        y.backward(dy)
        results.append((y, leaf.grad, layer.values.grad, layer.bias.grad))
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))
