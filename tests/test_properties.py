"""What holds for every topology, shape, dtype, rule and optimizer, on examples drawn at random.

`TTS_LONG_TESTS=1 python -m pytest tests/test_properties.py` draws fifty times as many.
"""

from __future__ import annotations

import os

import pytest
import torch

pytest.importorskip("hypothesis")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_layers import seeded

import torch_truly_sparse as tts
from torch_truly_sparse.topology import seal_of

EXAMPLES = 5000 if os.environ.get("TTS_LONG_TESTS") else 100
often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
}


@st.composite
def layers(draw, least=0):
    """A layer of any topology: positions, dtypes of weights and indices, with bias or without."""
    rows, columns = draw(st.integers(least, 14)), draw(st.integers(least, 14))
    taken = draw(st.sets(st.integers(0, max(rows * columns - 1, 0)), max_size=rows * columns))
    positions = torch.tensor(sorted(taken) if rows * columns else [], dtype=torch.int64)
    indices = torch.stack([positions // max(columns, 1), positions % max(columns, 1)])
    indices = indices.to(draw(st.sampled_from([torch.int32, torch.int64])))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    g = seeded(draw(st.integers(0, 1000)))
    values = torch.randn(len(positions), dtype=dtype, generator=g)
    bias = torch.randn(rows, dtype=dtype, generator=g) if draw(st.booleans()) else None
    topology = tts.Topology.from_indices(indices, (rows, columns))
    return tts.TrulySparseLinear.from_topology(topology, values, bias)


@often
@given(layers(), st.integers(0, 40), st.booleans(), st.integers(0, 1000))
def test_a_layer_computes_what_its_dense_matrix_does(layer, batch, half, seed):
    half = half and layer.values.dtype == torch.float32
    dtype = torch.bfloat16 if half else layer.values.dtype
    x = torch.randn(batch, layer.in_features, generator=seeded(seed)).to(dtype).requires_grad_()
    dy = torch.randn(batch, layer.out_features, generator=seeded(seed + 1)).to(dtype)
    y = layer(x)
    y.backward(dy)
    weight = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64)
    rows, columns = layer.indices.long()
    weight[rows, columns] = layer.values.detach().double()
    exact = x.detach().double() @ weight.t()
    if layer.bias is not None:
        exact = exact + layer.bias.detach().double()
        torch.testing.assert_close(
            layer.bias.grad.double(), dy.double().sum(dim=0), rtol=1e-4, atol=1e-4
        )
    close = {"rtol": 2e-2, "atol": 2e-2} if half else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(y.double(), exact, **close)
    torch.testing.assert_close(x.grad.double(), dy.double() @ weight, **close)
    gradient = (dy.double().t() @ x.detach().double())[rows, columns]
    torch.testing.assert_close(layer.values.grad.double(), gradient, rtol=1e-4, atol=1e-4)


@often
@given(layers())
def test_a_topology_says_the_same_in_every_form(layer):
    topology = layer.topology
    assert tts.Topology.from_positions(topology.positions(), topology.shape) == topology
    mask = torch.zeros(topology.shape, dtype=torch.bool)
    mask[tuple(topology.indices.long())] = True
    assert tts.Topology.from_mask(mask) == topology
    assert int(topology.row_pointers[-1]) == topology.nnz == int(mask.sum())
    fresh = tts.TrulySparseLinear.from_topology(topology, layer.values.detach(), None)
    state = {key: value.clone() for key, value in fresh.state_dict().items()}
    other = tts.TrulySparseLinear(layer.in_features, layer.out_features, False, nnz=0)
    other.load_state_dict(state)
    assert other.topology == topology
    assert torch.equal(other.seal, seal_of(topology))


@often
@given(
    layers(least=2),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.sampled_from(["sign_split", "magnitude", "random", "magnitude_gradient"]),
    st.sampled_from(["random", "gradient", "momentum", "candidate_gradient", "cannistraci_hebb"]),
    st.floats(0, 1),
    st.integers(1, 3),
)
def test_an_evolution_keeps_what_it_does_not_replace(layer, name, prune, regrow, fraction, steps):
    optimizer = OPTIMIZERS[name](layer.parameters())
    evolution = tts.SparseEvolution(
        layer, optimizer, prune=prune, regrow=regrow, fraction=fraction, generator=seeded()
    )
    for step in range(steps):
        evolution.arm()
        optimizer.zero_grad()
        x = torch.randn(5, layer.in_features, dtype=layer.values.dtype, generator=seeded(step))
        layer(x).square().sum().backward()
        optimizer.step()
    parameter, nnz = layer.values, layer.nnz
    before = dict(zip(layer.topology.positions().tolist(), layer.values.tolist(), strict=True))
    state = {
        key: dict(zip(before, value.tolist(), strict=True))
        for key, value in optimizer.state[parameter].items()
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape
    }
    evolution.step()
    assert layer.values is parameter
    assert layer.nnz == nnz
    positions = layer.topology.positions().tolist()
    assert positions == sorted(set(positions))
    assert torch.equal(layer.seal, seal_of(layer.topology))
    fresh = len(set(positions) - set(before))
    assert fresh <= round(fraction * nnz) + 1
    if fraction == 0:
        assert fresh == 0
    now = dict(zip(positions, layer.values.tolist(), strict=True))
    drawn = sum(value != before.get(place) for place, value in now.items())
    assert drawn <= round(fraction * nnz) + 1  # all others keep their weights
    for at, (place, value) in enumerate(now.items()):
        for key, entries in state.items():
            held = optimizer.state[parameter][key][at].item()
            # A connection that was dropped and came straight back begins anew.
            assert held == entries.get(place, 0.0) or (held == 0.0 and value != before.get(place))
    assert layer(x).isfinite().all()
