"""The topology of a layer, as the user sees and changes it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from oracles import (
    INDEX_DTYPES,
    OperatorLog,
    random_mask,
    same_bits,
)
from small_layers import of_mask, seeded, small
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear, ops
from torch_truly_sparse.topology import Topology

# nn.Linear says so of itself, as the tests convert layers that have no inputs.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


# The topology as the user sees and changes it


def _assert_follows(layer: TrulySparseLinear) -> None:
    """Forward, both gradients and the row pointers belong to the indices of now."""
    x = torch.randn(5, layer.in_features, dtype=layer.values.dtype, requires_grad=True)
    twin, dense = x.detach().clone().requires_grad_(), layer.to_dense()
    layer.zero_grad()
    torch.testing.assert_close(layer(x), dense(twin))
    layer(x).square().sum().backward()
    dense(twin).square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    rows, columns = layer.indices.long()
    torch.testing.assert_close(layer.values.grad, dense.weight.grad[rows, columns])
    expected = ops.compress(layer.indices, (layer.out_features, layer.in_features))
    assert torch.equal(layer.topology.row_pointers, expected)


def _other(layer: TrulySparseLinear, seed: int = 9) -> Tensor:
    size = layer.out_features, layer.in_features
    return Topology.random(*size, nnz=layer.nnz, generator=seeded(seed)).indices


@pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)
def test_an_assigned_topology_is_followed_and_is_a_copy(dtype):
    layer = small()
    _assert_follows(layer)
    given = _other(layer).to(dtype)
    layer.indices = given
    assert torch.equal(layer.indices, given)
    assert layer.indices.dtype == torch.int32
    _assert_follows(layer)
    kept = layer.indices.clone()
    given.zero_()
    assert torch.equal(layer.indices, kept)
    assert "indices" in dict(layer.named_buffers())


def test_assigning_the_own_topology_changes_nothing():
    layer = small()
    before = layer.indices.clone()
    layer.indices = layer.indices
    assert torch.equal(layer.indices, before)
    _assert_follows(layer)


@pytest.mark.parametrize("write", ["copy", "inference", "view"])
def test_a_change_in_place_without_the_seal_is_refused_until_it_is_assigned(write):
    layer = small()
    _assert_follows(layer)
    given = _other(layer)
    if write == "inference":
        with torch.inference_mode():
            layer.indices.copy_(given)
    elif write == "view":
        layer.indices.view(-1)[:] = given.flatten()
    else:
        layer.indices.copy_(given)
    for _ in range(2):
        with pytest.raises(ValueError, match="not the connections that their `seal` was made of"):
            layer(torch.ones(1, 9))
    layer.indices = layer.indices
    _assert_follows(layer)


def test_indices_and_seal_that_are_copied_together_are_followed():
    layer, other = small(), small()
    other.indices = _other(layer)
    _assert_follows(layer)
    for own, given in zip(layer.buffers(), other.buffers(), strict=True):
        own.copy_(given)
    _assert_follows(layer)


@pytest.mark.parametrize(
    "write",
    [
        lambda indices, given: indices.data.copy_(given),
        lambda indices, given: np.copyto(indices.numpy(), given.numpy()),
    ],
    ids=["data", "numpy"],
)
def test_a_change_that_torch_does_not_count_is_followed_after_an_assignment(write):
    layer = small()
    _assert_follows(layer)
    write(layer.indices, _other(layer))
    layer.indices = layer.indices
    _assert_follows(layer)


@pytest.mark.parametrize(
    "use",
    [
        lambda layer: layer(torch.ones(1, 9)),
        lambda layer: layer.weight.to_dense(),
        lambda layer: layer.to_dense(),
    ],
)
def test_an_invalid_change_in_place_is_refused_at_the_next_use(use):
    for position, offence in [((0, 0), 6), ((1, -1), -1), ((0, 0), 5)]:
        layer = small()
        layer.indices[position] = offence
        for _ in range(2):
            with pytest.raises(ValueError, match="`indices"):
                use(layer)
        layer.indices = _other(layer)
        _assert_follows(layer)


@pytest.mark.parametrize(
    ("indices", "error", "text"),
    [
        (torch.zeros(2, 19).long(), ValueError, "must be unique"),
        (torch.arange(6).expand(2, 6), ValueError, "must hold 20 connections, .* got 6"),
        (None, TypeError, "got NoneType"),
        (torch.zeros(2, 20), TypeError, "int32 or int64, got torch.float32"),
    ],
)
def test_an_assigned_topology_that_does_not_fit_changes_nothing(indices, error, text):
    layer = small()
    before, x = layer.indices.clone(), torch.randn(2, 9)
    y = layer(x)
    with pytest.raises(error, match=text):
        layer.indices = indices
    assert torch.equal(layer.indices, before)
    assert same_bits(layer(x), y)


@pytest.mark.parametrize(
    ("topology", "error", "text"),
    [
        (Topology.random(6, 9, nnz=19), ValueError, "must hold 20 connections, .* got 19"),
        (
            Topology.random(9, 6, nnz=20),
            ValueError,
            r"must have the shape \(6, 9\) .* got \(9, 6\)",
        ),
        (torch.zeros(2, 20).long(), TypeError, "`topology` must be a Topology, got Tensor: make"),
        (None, TypeError, "`topology` must be a Topology, got NoneType"),
    ],
)
def test_a_topology_that_does_not_fit_replaces_nothing(topology, error, text):
    layer = small()
    before, x = layer.indices.clone(), torch.randn(2, 9)
    y = layer(x)
    with pytest.raises(error, match=text):
        layer.replace_topology(topology)
    assert torch.equal(layer.indices, before)
    assert same_bits(layer(x), y)


def test_a_topology_that_a_layer_has_left_says_so_and_a_copy_of_it_stays():
    layer = small()
    left, kept = layer.topology, copy.deepcopy(layer.topology)
    before = layer.indices.clone()
    layer.reset_topology(generator=seeded(1))
    for use in (lambda: left.indices, left.positions, left.fingerprint, left.fan_out):
        with pytest.raises(ValueError, match="changed in place"):
            use()
    with pytest.raises(ValueError, match="changed in place"):
        layer.replace_topology(left)
    assert torch.equal(kept.indices, before)
    layer.replace_topology(kept)
    assert layer.topology == kept
    _assert_follows(layer)


def test_values_of_another_length_are_refused():
    layer = small()
    layer.values = nn.Parameter(torch.ones(19))
    with pytest.raises(ValueError, match=r"`values` must have shape \(20,\)"):
        layer(torch.ones(2, 9))


# torch.func.functional_call


@pytest.mark.parametrize("nnz", [20, 31])
@pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)
def test_a_call_with_other_indices_uses_them_once(nnz, dtype):
    layer, x = small(), torch.randn(4, 9, requires_grad=True)
    _assert_follows(layer)
    before, y = layer.indices, layer(x)
    other = of_mask(random_mask(6, 9, nnz, seed=1))
    lent = {"indices": other.indices.to(dtype), "values": other.values, "bias": other.bias}
    result = torch.func.functional_call(layer, lent, (x,))
    assert same_bits(result, other(x))
    (gradient,) = torch.autograd.grad(result.sum(), other.values)
    (expected,) = torch.autograd.grad(other(x).sum(), other.values)
    assert same_bits(gradient, expected)
    assert layer.indices is before
    assert same_bits(layer(x), y)
    _assert_follows(layer)


def test_a_call_with_other_values_uses_the_orders_that_are_there():
    layer, x = small(), torch.randn(4, 9, requires_grad=True)
    y = layer(x)
    with OperatorLog() as ran:
        lent = {"values": 2 * layer.values, "bias": 2 * layer.bias}
        doubled = torch.func.functional_call(layer, lent, (x,))
    assert ran.names == ["spmm"]
    assert same_bits(doubled, 2 * y)


def test_a_call_with_invalid_indices_is_refused_and_leaves_the_layer_as_it_was():
    layer, x = small(), torch.randn(4, 9)
    y = layer(x)
    with pytest.raises(ValueError, match="outside"):
        torch.func.functional_call(layer, {"indices": layer.indices + 9}, (x,))
    assert same_bits(layer(x), y)


def test_a_call_with_other_indices_leaves_the_layers_own_to_be_derived_once():
    layer, x = copy.deepcopy(small()), torch.randn(20, 9, requires_grad=True)
    torch.func.functional_call(layer, {"indices": _other(layer)}, (x,))
    layer(x)
    with OperatorLog() as ran:
        layer(x).sum().backward()
    assert "compress" not in ran.names
    assert "transpose" not in ran.names


# meta


def test_a_layer_made_on_meta_becomes_whole_by_reset_topology():
    layer = TrulySparseLinear(30, 40, density=0.1, device="meta")
    assert all(t.is_meta for t in layer.state_dict().values())
    assert layer(torch.ones(2, 30, device="meta")).shape == (2, 40)
    layer.to_empty(device="cpu")
    layer.reset_topology(generator=seeded())
    direct = TrulySparseLinear(30, 40, density=0.1, generator=seeded())
    assert torch.equal(layer.indices, direct.indices)
    assert same_bits(layer.values, direct.values)
    _assert_follows(layer)


@pytest.mark.parametrize("memory", [0, -1, 2**31 - 1])
@pytest.mark.parametrize(
    "use",
    [
        lambda layer: layer(torch.ones(2, 30)),
        lambda layer: layer.weight.to_dense(),
        lambda layer: layer.to_dense(),
    ],
)
def test_an_emptied_layer_is_refused_until_it_is_reset(memory, use):
    layer = TrulySparseLinear(30, 40, density=0.1, device="meta").to_empty(device="cpu")
    layer.indices.fill_(memory)  # whatever the memory held
    with pytest.raises(ValueError, match="`indices"):
        use(layer)
    layer.reset_topology()
    _assert_follows(layer)


@pytest.mark.parametrize("memory", [0, -1, 41])
def test_parameters_of_an_emptied_layer_cannot_be_reset_without_a_topology(memory):
    layer = TrulySparseLinear(30, 40, density=0.1, device="meta").to_empty(device="cpu")
    layer.indices.fill_(memory)
    with pytest.raises(ValueError, match="`indices"):
        layer.reset_parameters()


def test_a_meta_layer_refuses_a_cpu_input():
    with pytest.raises((ValueError, RuntimeError), match=r"device|CPU|meta"):
        TrulySparseLinear(30, 40, density=0.1, device="meta")(torch.ones(2, 30))


# Dtypes


def test_conversion_keeps_parameters_the_same_objects_and_the_topology():
    layer = small()
    values, bias, indices = layer.values, layer.bias, layer.indices.clone()
    original = values.detach().clone()
    for convert in layer.double, lambda: layer.to(torch.float64):
        assert convert() is layer
        assert layer.values.dtype == layer.bias.dtype == torch.float64
        assert layer.values is values
        assert layer.bias is bias
        assert torch.equal(layer.indices, indices)
        assert layer.indices.dtype == torch.int32
        assert torch.equal(layer.values.detach(), original.double())
        _assert_follows(layer)
    layer.float()
    assert same_bits(layer.values, original)
    _assert_follows(layer)


def test_the_package_names_its_layer():
    assert tts.TrulySparseLinear is TrulySparseLinear
    assert isinstance(small(), tts.nn.SparseLayer)
