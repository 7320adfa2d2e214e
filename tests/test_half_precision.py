"""Autocast, and models of half precision around weights that stay float32."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import all_same_bits, same_bits
from small_layers import small
from torch import nn

from torch_truly_sparse import TrulySparseLinear
from torch_truly_sparse.functional import sparse_linear

HALVES = [torch.bfloat16, torch.float16]
each_half = pytest.mark.parametrize("half", HALVES, ids=str)


def network() -> nn.Sequential:
    return nn.Sequential(
        TrulySparseLinear(9, 12, nnz=40), nn.LayerNorm(12), TrulySparseLinear(12, 6, nnz=30)
    )


@each_half
@pytest.mark.parametrize("given", [torch.float32, *HALVES], ids=str)
def test_autocast_gives_what_it_gives_with_a_dense_layer(half, given):
    layer = small()
    dense = layer.to_dense()
    x, twin = (torch.ones(5, 9, dtype=given, requires_grad=True) for _ in range(2))
    with torch.autocast("cpu", dtype=half):
        y, expected = layer(x), dense(twin)
    assert y.dtype == expected.dtype == half
    torch.testing.assert_close(y, expected, atol=0.05, rtol=0.05)
    y.sum().backward()
    expected.sum().backward()
    assert x.grad.dtype == twin.grad.dtype == given
    torch.testing.assert_close(x.grad, twin.grad, atol=0.1, rtol=0.05)
    for parameter in layer.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
    rows, columns = layer.indices.long()
    expected = dense.weight.grad[rows, columns]
    torch.testing.assert_close(layer.values.grad, expected, atol=0.1, rtol=0.05)


@each_half
def test_autocast_is_a_conversion_of_the_input_and_nothing_else(half):
    layer, x = small(), torch.randn(5, 9)
    with torch.autocast("cpu", dtype=half):
        y = layer(x)
        stateless = sparse_linear(x, layer.topology, layer.values, layer.bias)
        with torch.autocast("cpu", enabled=False):
            assert layer(x).dtype == torch.float32
    assert torch.equal(y, layer(x.to(half)))
    assert torch.equal(stateless, y)


def test_autocast_leaves_float64_alone_as_a_dense_layer_does():
    layer, x = small(dtype=torch.float64), torch.randn(5, 9).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(x).dtype == layer.to_dense()(x).dtype == torch.float64


def test_autocast_on_meta_and_of_what_is_no_activation():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        meta = TrulySparseLinear(9, 6, nnz=20, device="meta")
        assert meta(torch.ones(2, 9, device="meta")).shape == (2, 6)
        with pytest.raises(TypeError, match="share one dtype"):
            small()(torch.ones(2, 9).long())
        with pytest.raises(TypeError, match="got list"):
            small()([[1.0] * 9])


def test_training_under_autocast_follows_float32():
    def train(enabled: bool) -> list[float]:
        torch.manual_seed(0)
        model, losses = network(), []
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(10):
            x = torch.randn(16, 9)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = (model(x).float() - x[:, :6]).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    torch.testing.assert_close(train(True), train(False), atol=0.05, rtol=0.05)


@each_half
@pytest.mark.parametrize("convert", [lambda m, h: m.to(h), lambda m, h: m.type(h)])
def test_a_half_model_keeps_sparse_weights_in_float32(half, convert):
    model = network()
    before = [copy.deepcopy(model[i].state_dict()) for i in (0, 2)]
    parameters = list(model.parameters())
    assert convert(model, half) is model
    assert [p is q for p, q in zip(model.parameters(), parameters, strict=True)]
    for i, state in zip((0, 2), before, strict=True):
        assert all_same_bits(model[i].state_dict(), state)  # not rounded
    assert model[1].weight.dtype == half
    x = torch.randn(5, 9).to(half).requires_grad_()
    y = model(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == half
    assert model[0].values.grad.dtype == torch.float32
    assert all_same_bits(model.float()[0].state_dict(), before[0])
    assert model(x.float()).dtype == torch.float32


@pytest.mark.parametrize("name", ["half", "bfloat16", "float", "double"])
def test_the_methods_of_a_module(name):
    model, x = network(), torch.randn(5, 9)
    expected = getattr(model[0].to_dense(), name)()(getattr(x, name)())
    y = getattr(model, name)()[0](getattr(x, name)())
    assert y.dtype == expected.dtype
    torch.testing.assert_close(y, expected, atol=0.05, rtol=0.05)


@each_half
def test_float64_weights_of_a_half_model_become_float32(half):
    layer = small(dtype=torch.float64).to(half)
    assert layer.values.dtype == layer.bias.dtype == torch.float32
    assert layer.indices.dtype == torch.int32


@each_half
@pytest.mark.parametrize("assign", [False, True])
def test_a_half_state_is_loaded_as_float32(half, assign):
    saved, receiver = small(), small()
    state = {k: v.to(half) if v.is_floating_point() else v for k, v in saved.state_dict().items()}
    receiver.load_state_dict(state, assign=assign)
    assert same_bits(receiver.values, state["values"].float())
    assert same_bits(receiver.bias, state["bias"].float())
    assert state["values"].dtype == half  # the state is the caller's
    receiver(torch.ones(2, 9)).sum().backward()


@each_half
def test_half_models_on_meta(half):
    layer = TrulySparseLinear(9, 6, nnz=20, device="meta").to(half)
    assert layer.values.dtype == torch.float32
    layer.to_empty(device="cpu").reset_topology()
    assert layer(torch.ones(2, 9, dtype=half)).dtype == half
