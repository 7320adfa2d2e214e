"""Initial weights, generators and resets."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import (
    same_bits,
)
from small_layers import seeded, small
from torch import Tensor, nn

from torch_truly_sparse import TrulySparseLinear
from torch_truly_sparse.nn import LinearUniform

# nn.Linear says so of itself, as the tests convert layers that have no inputs.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


# Initial weights


def _unequal_rows() -> Tensor:
    """30 units of 400 connections, 300 of 40, 3000 of 4: 12,000 weights each."""
    fan_in = torch.tensor([400] * 30 + [40] * 300 + [4] * 3000)
    rows = torch.repeat_interleave(fan_in)
    columns = torch.cat([torch.randperm(400)[:n].sort().values for n in fan_in.tolist()])
    return torch.stack([rows, columns])


def _initialised(init: str) -> tuple[Tensor, Tensor]:
    layer = TrulySparseLinear(400, 3330, nnz=36_000, init=init)
    layer.indices = _unequal_rows()
    layer.reset_weights(generator=seeded())
    assert (layer.bias == 0).all()
    return layer.indices.long(), layer.values.detach()


def _assert_uniform(values: Tensor, bounds: Tensor) -> None:
    relative = (values / bounds).double()
    n = len(values)
    assert relative.abs().max() <= 1 + 1e-6
    assert relative.abs().max() > 1 - 20 / n
    # Uniform in [-1, 1]: variance 1/3, and that of a squared entry 4/45.
    assert abs(relative.mean().item()) < 5 * (1 / 3 / n) ** 0.5
    assert abs(relative.square().mean().item() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5


def test_the_default_is_the_scale_of_a_dense_layer_with_the_fan_in_that_each_unit_has():
    (rows, _), values = _initialised("linear_uniform")
    fan_in = torch.bincount(rows)[rows]
    for fan in 400, 40, 4:
        _assert_uniform(values[fan_in == fan], torch.tensor(1 / math.sqrt(fan)))
    assert TrulySparseLinear(3, 3, nnz=1).init == LinearUniform()


def test_he_uniform_scales_with_the_fan_in_that_each_unit_has():
    (rows, _), values = _initialised("he_uniform")
    fan_in = torch.bincount(rows)[rows]
    for fan in 400, 40, 4:
        _assert_uniform(values[fan_in == fan], torch.tensor(math.sqrt(6 / fan)))


def test_xavier_uniform_scales_with_both_fans_that_the_units_have():
    (rows, columns), values = _initialised("xavier_uniform")
    fans = torch.bincount(rows)[rows] + torch.bincount(columns)[columns]
    bounds = (6 / fans).sqrt()
    for fan in 400, 40, 4:
        units = torch.bincount(rows)[rows] == fan
        _assert_uniform(values[units], bounds[units])


def test_set_normal_has_deviation_a_tenth_and_zeros_are_zero():
    _, values = _initialised("set_normal")
    n = len(values)
    assert abs(values.mean().item()) < 5 * 0.1 / n**0.5
    assert abs(values.var().item() / 0.01 - 1) < 5 * (2 / n) ** 0.5
    # The fourth moment tells a normal distribution from a uniform one: 3, not 1.8.
    assert abs((values / 0.1).pow(4).mean().item() - 3) < 5 * (96 / n) ** 0.5
    assert (_initialised("zeros")[1] == 0).all()


def test_he_uniform_keeps_the_variance_of_activations_through_relu():
    mean_square = torch.randn(2000, 1000).square().mean().item()
    options = {"density": 0.03, "bias": False, "init": "he_uniform"}
    layers = [TrulySparseLinear(1000, 1000, **options) for _ in range(4)]
    x = torch.randn(500, 1000)
    with torch.no_grad():
        for layer in layers:
            x = layer(x).relu() * 1.0
    # After ReLU half the variance is gone and He's factor 2 has restored it beforehand.
    assert 0.5 * mean_square < x.square().mean().item() < 2 * mean_square


def test_an_initializer_of_ones_own_is_asked_for_every_weight():
    class Ramp:
        def draw(self, connections, topology, *, dtype, generator):
            assert torch.equal(connections, topology.indices)
            assert topology.shape == (6, 9)
            return torch.arange(connections.shape[1], dtype=dtype)

    layer = TrulySparseLinear(9, 6, nnz=20, init=Ramp())
    assert torch.equal(layer.values.detach(), torch.arange(20.0))
    layer.reset_parameters("zeros")
    assert (layer.values == 0).all()


# Generators, resets, identity


def test_equal_generators_build_equal_layers_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    layers = [TrulySparseLinear(30, 40, density=0.1, generator=seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[0].indices, layers[1].indices)
    assert same_bits(layers[0].values, layers[1].values)
    assert not torch.equal(layers[0].indices, layers[2].indices)


def test_without_a_generator_the_global_seed_decides():
    layers = []
    for _ in range(2):
        torch.manual_seed(11)
        layers.append(TrulySparseLinear(30, 40, density=0.1))
    assert torch.equal(layers[0].indices, layers[1].indices)
    assert same_bits(layers[0].values, layers[1].values)


def test_resets_are_in_place_and_repeat_the_construction():
    layer = TrulySparseLinear(30, 40, density=0.1, generator=seeded())
    start = layer.indices.clone(), layer.values.detach().clone()
    kept = layer.values, layer.bias, layer.values.data_ptr(), layer.indices
    nn.init.ones_(layer.bias)
    layer.reset_topology(generator=seeded(5))
    assert not torch.equal(layer.indices, start[0])
    layer.reset_topology(generator=seeded())
    assert torch.equal(layer.indices, start[0])
    assert same_bits(layer.values, start[1])
    assert (layer.bias == 0).all()
    layer.reset_parameters(generator=seeded(6))
    assert torch.equal(layer.indices, start[0])
    assert not torch.equal(layer.values, start[1])
    assert layer.values is kept[0]
    assert layer.bias is kept[1]
    assert layer.values.data_ptr() == kept[2]
    assert layer.indices is kept[3]


def test_results_follow_a_reset_topology():
    layer, x = small(), torch.randn(4, 9, requires_grad=True)
    layer(x).sum().backward()
    layer.reset_topology()
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


@pytest.mark.parametrize("how", ["reset", "assign", "load"])
def test_a_topology_changed_in_inference_mode_can_be_trained(how):
    layer, other = small(), TrulySparseLinear(9, 6, nnz=25 if how == "load" else 20)
    with torch.inference_mode():
        if how == "reset":
            layer.reset_topology()
        elif how == "assign":
            layer.indices = other.indices
        else:
            layer.load_state_dict(other.state_dict())
    layer(torch.randn(4, 9, requires_grad=True)).sum().backward()
