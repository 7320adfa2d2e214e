"""What a rule sees of a layer: the same numbers from both twins, and clear words where none are."""

import pytest
import torch
from evolving_network import LAYERS, both_twins, seeded, sgd, view
from torch import optim

import torch_truly_sparse as tts
from torch_truly_sparse.rules import LayerView


def trained(layer_type, make=sgd) -> tuple[tts.nn.SparseLayer, optim.Optimizer]:
    layer = layer_type(6, 5, nnz=12, dtype=torch.float64, generator=seeded())
    optimizer = make(layer)
    for seed in range(2):
        optimizer.zero_grad()
        x = torch.randn(4, 6, dtype=torch.float64, generator=seeded(seed))
        layer(x).square().sum().backward()
        optimizer.step()
    return layer, optimizer


def everything_seen(seen: LayerView) -> dict[str, torch.Tensor]:
    names = ("weights", "gradient", "momentum")
    topology = seen.topology
    return {name: getattr(seen, name) for name in names} | {
        "indices": topology.indices,
        "positions": topology.positions(),
    }


@pytest.mark.parametrize("make", [sgd, lambda layer: optim.Adam(layer.parameters())])
def test_twins_show_the_same(make) -> None:
    shown = [everything_seen(view(*trained(layer_type, make))) for layer_type in LAYERS]
    for name, first in shown[0].items():
        second = shown[1][name]
        assert first.shape[-1] == 12
        torch.testing.assert_close(first.double(), second.double(), rtol=1e-12, atol=0)


def test_everything_is_in_the_order_of_the_topology() -> None:
    layer, optimizer = trained(tts.TrulySparseLinear)
    seen = view(layer, optimizer, step=4, evolutions=2)
    assert torch.equal(seen.weights, layer.values)
    assert torch.equal(seen.gradient, layer.values.grad)
    assert torch.equal(seen.momentum, optimizer.state[layer.values]["momentum_buffer"])
    assert torch.equal(seen.state("momentum_buffer"), seen.momentum)
    assert seen.topology == layer.topology
    assert (seen.nnz, seen.in_features, seen.out_features) == (12, 6, 5)
    assert (seen.dtype, seen.step, seen.evolutions) == (torch.float64, 4, 2)


@both_twins
def test_a_part_of_a_layer_is_seen_the_same_way(layer_type) -> None:
    seen = view(*trained(layer_type))
    first = torch.arange(12) % 3 == 0
    second = torch.arange(8) % 2 == 1
    part = seen.without(first).without(second)
    kept = [i for i in range(12) if i % 3][::2]
    assert part.nnz == len(kept) == 4
    for name, entries in everything_seen(part).items():
        assert torch.equal(entries, everything_seen(seen)[name][..., kept])


@both_twins
def test_what_is_missing_is_named(layer_type) -> None:
    layer = layer_type(6, 5, nnz=12)
    seen = view(layer, sgd(layer))
    with pytest.raises(ValueError, match="layer 'layer' has no gradient: evolve after a backward"):
        _ = seen.gradient
    with pytest.raises(ValueError, match=r"has no momentum in SGD: use SGD\(momentum=...\) or"):
        _ = seen.momentum
    with pytest.raises(ValueError, match="SGD keeps no 'exp_avg' for each weight of layer 'layer'"):
        seen.state("exp_avg")
    with pytest.raises(ValueError, match="no backward pass was captured"):
        seen.captured_gradient()


def test_a_number_for_the_whole_layer_is_no_state_of_each_weight() -> None:
    layer, optimizer = trained(tts.TrulySparseLinear, lambda m: optim.Adam(m.parameters()))
    with pytest.raises(ValueError, match="Adam keeps no 'step' for each weight"):
        view(layer, optimizer).state("step")
