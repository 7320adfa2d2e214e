"""To and from dense layers."""

from __future__ import annotations

import pytest
import torch
from oracles import (
    MASKS,
    VALUE_DTYPES,
    same_bits,
    valid_topology,
)
from small_layers import of_mask, small
from torch import nn

from torch_truly_sparse import Topology, TrulySparseLinear

# nn.Linear says so of itself, as the tests convert layers that have no inputs.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
each_value_dtype = pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)


@each_mask
def test_weight_is_a_coalesced_sparse_tensor_of_the_dense_weight(mask):
    layer = of_mask(mask)
    assert layer.weight.is_coalesced()
    assert layer.weight.shape == mask.shape
    with torch.sparse.check_sparse_tensor_invariants():
        assert torch.equal(layer.weight.to_dense(), layer.to_dense().weight)


def test_gradients_flow_through_weight_to_values():
    layer = small()
    penalty = torch.sparse.sum(layer.weight * layer.weight)
    penalty.backward()
    torch.testing.assert_close(layer.values.grad, 2 * layer.values.detach())


@pytest.mark.parametrize(
    "write",
    [
        lambda layer: layer.weight.data.zero_(),
        lambda layer: layer.weight.data.mul_(2),
        lambda layer: layer.weight.detach().div_(2),
        lambda layer: layer.weight.detach().values().fill_(9),
    ],
    ids=["zero", "mul", "div", "values"],
)
def test_weight_is_a_copy_whatever_is_written_into_it(write):
    layer, x = small(), torch.randn(4, 9)
    before, values = layer(x), layer.values.detach().clone()
    write(layer)
    assert same_bits(layer.values, values)
    assert same_bits(layer(x), before)


def test_an_assigned_weight_is_refused_with_the_way_around():
    layer = small()
    before = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    for weight in nn.Parameter(torch.zeros(6, 9)), torch.zeros(6, 9), layer.weight, None:
        with pytest.raises(AttributeError, match=r"`weight` cannot be assigned: .* `layer.values`"):
            layer.weight = weight
    assert all(same_bits(layer.state_dict()[key], before[key]) for key in before)
    assert [name for name, _ in layer.named_parameters()] == ["values", "bias"]


@each_mask
def test_to_dense_and_back_changes_nothing(mask):
    layer = of_mask(mask, torch.float64)
    dense = layer.to_dense()
    assert torch.equal(dense.weight != 0, mask)
    back = TrulySparseLinear.from_dense(dense, mask=mask)
    assert torch.equal(back.indices, layer.indices)
    assert same_bits(back.values, layer.values)
    assert same_bits(back.bias, layer.bias)


def test_to_dense_leaves_the_global_generator_alone():
    layer = small()
    before = torch.get_rng_state()
    layer.to_dense()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("density", [0, 0.01, 0.1, 0.5, 0.77, 1])
def test_from_dense_keeps_the_largest_magnitudes(density):
    linear = nn.Linear(13, 7)
    layer = TrulySparseLinear.from_dense(linear, density=density)
    magnitudes = linear.weight.detach().abs()
    assert layer.nnz == round(density * 91)
    assert valid_topology(layer.indices, 7, 13)
    kept = torch.zeros(7, 13, dtype=torch.bool)
    kept[layer.indices[0].long(), layer.indices[1].long()] = True
    assert torch.equal(layer.values.detach(), linear.weight.detach()[kept])
    if 0 < layer.nnz < 91:
        assert magnitudes[kept].min() >= magnitudes[~kept].max()
    assert same_bits(layer.bias, linear.bias)


@pytest.mark.parametrize("nnz", [0, 1, 3, 6])
def test_from_dense_counts_exactly_where_magnitudes_tie(nnz):
    linear = nn.Linear(3, 2, bias=False)
    nn.init.constant_(linear.weight, -0.5)
    layer = TrulySparseLinear.from_dense(linear, density=nnz / 6)
    assert layer.nnz == nnz
    assert valid_topology(layer.indices, 2, 3)


def test_from_dense_copies():
    linear = nn.Linear(13, 7)
    layer = TrulySparseLinear.from_dense(linear, density=0.5)
    before = linear.weight.detach().clone()
    nn.init.zeros_(layer.values)
    nn.init.ones_(layer.bias)
    assert same_bits(linear.weight, before)
    assert not (linear.bias == 1).any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("flags", [(True, False), (False, True)])
@each_value_dtype
def test_conversions_keep_mode_flags_and_dtype(training, flags, dtype):
    linear = nn.Linear(13, 7, dtype=dtype).train(training)
    linear.weight.requires_grad_(flags[0])
    linear.bias.requires_grad_(flags[1])
    layer = TrulySparseLinear.from_dense(linear, density=0.5)
    dense = layer.to_dense()
    for module, weight in (layer, layer.values), (dense, dense.weight):
        assert module.training == training
        assert (weight.requires_grad, module.bias.requires_grad) == flags
        assert weight.dtype == module.bias.dtype == dtype
    assert TrulySparseLinear.from_dense(nn.Linear(3, 2, bias=False), density=1).bias is None


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "exactly one of `density` and `mask`"),
        ({"density": 0.5, "mask": torch.ones(2, 3).bool()}, TypeError, "exactly one of"),
        ({"density": 1.5}, ValueError, r"`density` must lie in \[0, 1\], got 1.5"),
        ({"mask": torch.ones(2, 3)}, TypeError, "`mask` must be a bool tensor, got torch.float32"),
        ({"mask": [[True]]}, TypeError, "`mask` must be a bool tensor, got list"),
        (
            {"mask": torch.ones(3, 2).bool()},
            ValueError,
            r"shape of the weight \(2, 3\), got \(3, 2",
        ),
    ],
)
def test_from_dense_refuses_what_it_cannot_follow(arguments, error, text):
    with pytest.raises(error, match=text):
        TrulySparseLinear.from_dense(nn.Linear(3, 2), **arguments)


def test_from_dense_wants_a_linear_layer():
    with pytest.raises(TypeError, match=r"`linear` must be an nn.Linear, got Conv1d"):
        TrulySparseLinear.from_dense(nn.Conv1d(1, 1, 1), density=0.5)


@each_mask
@each_value_dtype
def test_a_layer_of_known_connections(mask, dtype):
    layer = of_mask(mask, dtype)
    topology = Topology.from_indices(layer.indices.long(), layer.topology.shape)
    same = TrulySparseLinear.from_topology(topology, layer.values, layer.bias)
    assert same_bits(same.indices, layer.indices)
    assert same_bits(same.values, layer.values)
    assert same_bits(same.bias, layer.bias)
    assert same.values.data_ptr() != layer.values.data_ptr() or layer.nnz == 0
    assert same.values.requires_grad


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"values": torch.ones(3)}, ValueError, r"`values` must have shape \(2,\), got \(3,\)"),
        ({"values": [1.0, 2.0]}, TypeError, r"`values` must be a torch.Tensor, got list"),
        ({"values": torch.ones(2, dtype=torch.int64)}, TypeError, r"must be float32 or float64"),
        ({"bias": torch.ones(2)}, ValueError, r"`bias` must have shape \(3,\), got \(2,\)"),
        ({"topology": [[0], [0]]}, TypeError, r"`topology` must be a Topology, got list"),
    ],
)
def test_connections_that_do_not_fit_say_why(change, error, message):
    topology = Topology.from_indices(torch.tensor([[0, 2], [1, 0]]), (3, 2))
    given = {"topology": topology, "values": torch.ones(2), "bias": None} | change
    with pytest.raises(error, match=message):
        TrulySparseLinear.from_topology(**given)
