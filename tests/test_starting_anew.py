"""`reset_parameters` leaves nothing that was learnt; `reset_weights` leaves the topology."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_layers import seeded
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse import MaskedLinear, Topology, TrulySparseLinear

each_kind = pytest.mark.parametrize("kind", [TrulySparseLinear, MaskedLinear])


def evolved(kind: type = TrulySparseLinear) -> nn.Module:
    layer = kind(30, 20, nnz=100, generator=seeded(0))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(layer, optimizer, fraction=0.3, generator=seeded(1))
    evolution.step()
    evolution.remove()
    return layer


@each_kind
def test_an_evolved_topology_is_drawn_anew(kind):
    layer = evolved(kind)
    learnt = set(layer.topology.positions().tolist())
    parameter = layer.weight_parameter
    layer.reset_parameters(generator=seeded(5))
    assert layer.weight_parameter is parameter
    assert layer.nnz == 100
    left = learnt & set(layer.topology.positions().tolist())
    assert len(left) < 40  # 100 of 600 positions: 17 by chance
    assert (layer.bias == 0).all()
    layer(torch.ones(2, 30))


@each_kind
def test_the_weights_alone_are_drawn_anew(kind):
    layer = evolved(kind)
    topology = copy.deepcopy(layer.topology)
    before = layer.weight_parameter.detach().clone()
    layer.reset_weights(generator=seeded(5))
    assert layer.topology == topology
    assert not torch.equal(layer.weight_parameter, before)


@each_kind
def test_a_topology_that_was_drawn_or_given_and_is_still_there_stays(kind):
    drawn = kind(30, 20, nnz=100, generator=seeded(0))
    given = TrulySparseLinear.from_topology(evolved().topology, torch.ones(100))
    for layer in (drawn, given):
        topology = copy.deepcopy(layer.topology)
        layer.reset_parameters()
        assert layer.topology == topology


def changed_by_loading(layer: TrulySparseLinear) -> None:
    layer.load_state_dict(evolved().state_dict())


def changed_by_assignment(layer: TrulySparseLinear) -> None:
    layer.indices = evolved().indices


def changed_by_size(layer: TrulySparseLinear) -> None:
    layer.resize_topology(Topology.random(20, 30, nnz=80))


@pytest.mark.parametrize("change", [changed_by_loading, changed_by_assignment, changed_by_size])
@pytest.mark.parametrize("copied", [False, True])
def test_whatever_brought_a_topology_in_it_does_not_stay(change, copied):
    layer = TrulySparseLinear(30, 20, nnz=100)
    change(layer)
    if copied:
        layer = copy.deepcopy(layer)
    topology = copy.deepcopy(layer.topology)
    layer.reset_parameters()
    assert layer.nnz == topology.nnz
    assert layer.topology != topology


@pytest.mark.parametrize(
    "convert",
    [
        lambda linear: TrulySparseLinear.from_dense(linear, density=0.2),
        lambda linear: tts.sparsify(nn.Sequential(linear), density=0.2, init="magnitude")[0],
    ],
)
def test_a_topology_that_trained_weights_chose_does_not_stay(convert):
    layer = convert(nn.Linear(30, 20))
    topology = copy.deepcopy(layer.topology)
    layer.reset_parameters()
    assert layer.topology != topology


def test_cross_validation_on_noise_that_resets_between_folds_finds_nothing():
    """With the topology of the folds before, the test part would not be unseen."""
    scores = []
    for seed in range(6):
        g = seeded(seed)
        table = torch.randn(60, 200, generator=g)
        labels = torch.randint(0, 2, (60,), generator=g)
        network = nn.Sequential(
            TrulySparseLinear(200, 40, density=0.02, generator=g), nn.ReLU(), nn.Linear(40, 2)
        )
        scores += cross_validated(network, table, labels, g)
    assert abs(np.mean(scores) - 0.5) < 0.07  # 360 predictions: a deviation of 0.026


def cross_validated(
    network: nn.Sequential, table: Tensor, labels: Tensor, generator: torch.Generator
) -> list[float]:
    scores = []
    for held in torch.arange(60).chunk(5):
        for module in network:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        train = torch.ones(60, dtype=torch.bool)
        train[held] = False
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        evolution = tts.SparseEvolution(
            network, optimizer, regrow="gradient", fraction=0.3, every=3, generator=generator
        )
        for _ in range(30):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(table[train]), labels[train]).backward()
            optimizer.step()
        evolution.remove()
        with torch.no_grad():
            scores.append((network(table[held]).argmax(dim=1) == labels[held]).float().mean())
    return [float(score) for score in scores]
