"""NaN, infinities, numbers near zero, and sums of many terms: as nn.Linear has them, or as said."""

from __future__ import annotations

import copy

import pytest
import torch
from evolving_network import LAYERS, everything, network, seeded, sgd
from oracles import INDEX_DTYPES
from torch import nn

import torch_truly_sparse as tts

BATCHES = (1, 2, 5, 17, 40)
NAN, INF = float("nan"), float("inf")
TINY = torch.finfo(torch.float32).tiny


def classes_of(tensor: torch.Tensor) -> torch.Tensor:
    """0 for finite numbers, 1 for inf, 2 for -inf, 3 for NaN."""
    return tensor.isposinf() + 2 * tensor.isneginf() + 3 * tensor.isnan()


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("where", ["input", "output gradient", "weight", "bias"])
@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_a_layer_with_all_connections_spreads_what_is_not_finite_as_a_dense_one(
    number, where, batch
):
    dense = nn.Linear(9, 7)
    x, dy = torch.randn(batch, 9), torch.randn(batch, 7)
    with torch.no_grad():
        if where == "weight":
            dense.weight[3, 4] = number
        if where == "bias":
            dense.bias[2] = number
    if where == "input":
        x[-1, 4] = number
    if where == "output gradient":
        dy[-1, 3] = number
    layer = tts.TrulySparseLinear.from_dense(dense, mask=torch.ones(7, 9, dtype=torch.bool))
    found, expected = [], []
    for each, results in ((layer, found), (dense, expected)):
        given = x.clone().requires_grad_()
        y = each(given)
        y.backward(dy)
        weight = each.weight.grad if each is dense else each.values.grad.reshape(7, 9)
        results += [y.detach(), given.grad, weight, each.bias.grad]
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(classes_of(a), classes_of(b))
        torch.testing.assert_close(a[a.isfinite()], b[b.isfinite()])


@pytest.mark.parametrize("layer_type", LAYERS)
@pytest.mark.parametrize("regrow", ["gradient", "candidate_gradient", "momentum"])
@pytest.mark.parametrize(("where", "name"), [("x", "an input"), ("loss", "an output gradient")])
def test_growth_by_a_gradient_that_is_not_finite_is_refused(layer_type, regrow, where, name):
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model, optimizer, prune="magnitude", regrow=regrow, every=10, generator=seeded()
    )
    evolution.arm()
    x = torch.randn(16, 12, generator=seeded())
    if where == "x":
        x[3, 5] = INF
    loss = model(x).square().mean()
    (loss * (NAN if where == "loss" else 1)).backward()
    optimizer.step()
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=f"layer '[02]': {name} .* NaN or an infinity") as raised:
        evolution.step()
    assert "nothing was changed" in str(raised.value)
    for a, b in zip(before, everything(model, optimizer), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def chain(features: int, units: int) -> tts.TrulySparseLinear:
    """A layer with every connection between many units and one."""
    many = torch.arange(max(features, units), dtype=torch.int32)
    one = torch.zeros_like(many)
    indices = torch.stack([one, many] if features > units else [many, one])
    topology = tts.Topology.from_indices(indices, (units, features))
    values = torch.rand(len(many), generator=seeded())
    return tts.TrulySparseLinear.from_topology(topology, values, None)


@pytest.mark.parametrize("batch", [1, 2, 17])
def test_sums_of_ten_million_terms_are_rounded_as_their_segments_are(batch):
    """A row is summed in segments of 2048, so the bound is (2048 + n / 2048) epsilon / 2."""
    n = 10_000_000 if batch < 17 else 1_000_000  # of memory
    layer = chain(n, 1)
    x = torch.rand(batch, n, generator=seeded(1))
    with torch.no_grad():
        y = layer(x).double()
    exact = x.double() @ layer.values.detach().double()[:, None]
    bound = (2048 + n / 2048 + 2) * torch.finfo(torch.float32).eps / 2
    assert ((y - exact).abs() / exact).max() < bound
    assert ((y - exact).abs() / exact).max() < 1e-5


def test_gradients_over_a_million_samples_stay_within_their_bound():
    n = 1_000_000
    topology = tts.Topology.from_indices(torch.tensor([[0, 0, 1], [0, 2, 1]]), (2, 3))
    layer = tts.TrulySparseLinear.from_topology(topology, torch.ones(3), torch.zeros(2))
    x, dy = torch.rand(n, 3, generator=seeded()), torch.rand(n, 2, generator=seeded(1))
    layer(x).backward(dy)
    exact = (dy.double().t() @ x.double())[[0, 0, 1], [0, 2, 1]]
    bound = (n / 16 + 16) * torch.finfo(torch.float32).eps / 2
    assert ((layer.values.grad - exact).abs() / exact).max() < bound
    exact = dy.double().sum(dim=0)
    assert ((layer.bias.grad - exact).abs() / exact).max() < bound


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("index", INDEX_DTYPES)
def test_denormal_numbers_are_zeros_in_the_products_and_nowhere_else(batch, index):
    indices = torch.tensor([[0, 1, 2], [0, 1, 2]], dtype=index)
    topology = tts.Topology.from_indices(indices, (3, 3))
    values = torch.tensor([1.0, TINY / 4, 1e-20])
    layer = tts.TrulySparseLinear.from_topology(topology, values, torch.zeros(3))
    x = torch.tensor([TINY / 4, 1e20, 1e-20]).repeat(batch, 1).requires_grad_()
    y = layer(x)
    assert torch.equal(y, torch.zeros(batch, 3))  # an operand, an operand, the product
    y.backward(torch.full((batch, 3), TINY / 2))
    assert torch.equal(layer.values.grad, torch.zeros(3))
    if batch > 1:  # of one sample, nothing is added up
        assert torch.equal(layer.bias.grad, torch.zeros(3))
    assert torch.equal(x.grad, torch.zeros(batch, 3))
    assert (x.detach()[:, 0] * 2 == TINY / 2).all()  # torch's own arithmetic is as it was
    smallest = copy.deepcopy(layer)
    with torch.no_grad():
        smallest.values.fill_(1.0)
    kept = torch.full((batch, 3), TINY)
    assert torch.equal(smallest(kept), kept)
