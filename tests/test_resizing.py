"""Layers that change their number of connections: everything follows, nothing is left behind."""

import copy

import pytest
import torch
from evolving_network import both_twins, everything, network, positions, same, seeded, sgd
from torch import Tensor, nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse.evolution.layer_step import resize
from torch_truly_sparse.rules import ShrinkRule
from torch_truly_sparse.topology import Topology, TopologyChange

DTYPE = torch.float64
OPTIMIZERS = {
    "sgd": lambda p, **s: optim.SGD(p, lr=0.05, momentum=0.9, **s),
    "adam": lambda p, **s: optim.Adam(p, amsgrad=True, **s),
    "adamw": lambda p, **s: optim.AdamW(p, **s),
    "rmsprop": lambda p, **s: optim.RMSprop(p, momentum=0.9, centered=True, **s),
    "adagrad": lambda p, **s: optim.Adagrad(p, initial_accumulator_value=0.1, **s),
    "asgd": lambda p, **s: optim.ASGD(p, t0=1, **s),
}


def train(model: nn.Module, optimizer: optim.Optimizer, seed: int = 0, width: int = 12) -> Tensor:
    x = torch.randn(16, width, dtype=next(model.parameters()).dtype, generator=seeded(seed))
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def change_of(layer: tts.nn.SparseLayer, dropped: list[int], grown: list[int]) -> TopologyChange:
    before = layer.topology.positions()
    gone = torch.isin(before, torch.tensor(dropped, dtype=torch.int64))
    new = torch.tensor(grown, dtype=torch.int64)
    return layer.topology.replace(gone, new)


@both_twins
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("drop", "grow"), [(7, 0), (0, 9), (5, 2), (2, 5), (20, 0), (0, 10)])
def test_everything_follows_to_another_size(layer_type, kind, drop, grow) -> None:
    layer = layer_type(6, 5, nnz=20, dtype=DTYPE, generator=seeded())
    optimizer = OPTIMIZERS[kind](layer.parameters())
    for seed in range(3):
        train(layer, optimizer, seed, 6)
    parameter, gradient, state = layer.weight_parameter, layer.weight_parameter.grad, {}
    entries = optimizer.state[parameter]
    followers = {"weight": (parameter, 7.0), "gradient": (gradient, 0.0)}
    for number, (key, entry) in enumerate(entries.items()):
        if entry.shape == parameter.shape:
            followers[key] = entry, float(number)
        else:
            state[key] = entry.clone()
    before = positions(layer)
    expected = {
        name: dict(zip(before, layer.gather(tensor.detach()).tolist(), strict=True))
        for name, (tensor, _) in followers.items()
    }
    empty = sorted(set(range(30)) - set(before))
    dropped, grown = before[:: max(20 // drop, 1)][:drop] if drop else [], empty[:grow]

    resize(layer, change_of(layer, dropped, grown), list(followers.values()))

    after = positions(layer)
    assert after == sorted(set(before) - set(dropped) | set(grown))
    assert layer.nnz == 20 - drop + grow
    assert layer.weight_parameter is parameter
    assert parameter.grad is gradient
    for name, (tensor, fresh) in followers.items():
        assert tensor.shape == parameter.shape
        wanted = [fresh if p in grown else expected[name][p] for p in after]
        assert layer.gather(tensor.detach()).tolist() == wanted
    for key, entry in state.items():
        assert torch.equal(entries[key], entry)
    train(layer, optimizer, 9, 6)
    Topology.from_indices(layer.indices, (5, 6))


class Halve(ShrinkRule):
    """Drops every other connection for good."""

    def select(self, view, *, generator) -> Tensor:
        return torch.arange(view.nnz) % 2 == 1


@both_twins
def test_a_loss_that_is_kept_does_not_disturb_the_next_pass(layer_type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, shrink=Halve())
    kept = [train(model, optimizer)]
    for step in range(3):
        evolution.step()
        kept.append(train(model, optimizer, step))
    assert model[0].nnz == 72 // 8
    assert model[0].weight_parameter.grad.shape == model[0].weight_parameter.shape


@both_twins
@pytest.mark.parametrize("requires_grad", [False, True])
def test_backward_through_a_graph_older_than_the_size_raises(layer_type, requires_grad) -> None:
    model = network(layer_type)
    evolution = tts.SparseEvolution(model, sgd(model), shrink=Halve())
    loss = model(torch.randn(3, 12, requires_grad=requires_grad)).sum()
    evolution.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("form", [{"foreach": True}, {"foreach": False}, {"fused": True}], ids=str)
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw", "adagrad"])
def test_training_after_resizing_is_that_of_a_fresh_layer_of_that_size(kind, form) -> None:
    """Against a twin built with the new topology and handed weights and state one by one."""
    model = network()
    optimizer = OPTIMIZERS[kind](model.parameters(), **form)
    evolution = tts.SparseEvolution(model, optimizer, shrink=Halve())
    for seed in range(3):
        train(model, optimizer, seed)
    evolution.step()
    other = network(seed=5)
    other.load_state_dict(model.state_dict())
    other_optimizer = OPTIMIZERS[kind](other.parameters(), **form)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in range(3):
        train(model, optimizer, seed)
        train(other, other_optimizer, seed)
    assert same(everything(model, optimizer), everything(other, other_optimizer))


def test_twins_shrink_the_same_way() -> None:
    walks = []
    for layer_type in (tts.TrulySparseLinear, tts.MaskedLinear):
        generator = seeded()
        model = nn.Sequential(
            layer_type(12, 20, density=0.6, dtype=DTYPE, generator=generator),
            nn.Tanh(),
            layer_type(20, 9, density=0.6, dtype=DTYPE, generator=generator),
        )
        optimizer = sgd(model)
        tts.SparseEvolution(
            model,
            optimizer,
            prune="magnitude",
            shrink=tts.rules.GradualMagnitude(initial_density=0.6, final_density=0.2, end=6),
            redistribute="momentum",
            every=1,
            generator=seeded(4),
        )
        walks.append([])
        for step in range(8):
            train(model, optimizer, step)
            walks[-1].append([positions(model[0]), positions(model[2])])
    assert walks[0] == walks[1]
    sizes = [[len(layer) for layer in step] for step in walks[0]]
    assert sizes[-1] != sizes[0]


def test_a_rule_that_fails_in_the_last_layer_resizes_none() -> None:
    class Broken(ShrinkRule):
        def select(self, view, *, generator):
            dropped = torch.arange(view.nnz) % 2 == 0
            return dropped if view.name == "0" else dropped[1:]

    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, shrink=Broken())
    train(model, optimizer)
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=r"layer '2': `select` of Broken must return a torch.bool"):
        evolution.step()
    assert same(before, everything(model, optimizer))


@both_twins
@pytest.mark.parametrize("settings", [{"shrink": Halve()}, {"redistribute": "momentum"}], ids=str)
def test_a_layer_of_fixed_size_is_refused(layer_type, settings) -> None:
    model = network(layer_type)
    model[2].nnz_fixed_by = "DistributedDataParallel"
    message = "connections is fixed by DistributedDataParallel.*before wrapping"
    with pytest.raises(ValueError, match=message):
        tts.SparseEvolution(model, sgd(model), **settings)
    model[2].nnz_fixed_by = None
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, shrink=Halve())
    model[2].nnz_fixed_by = "DistributedDataParallel"  # wrapped in the meantime
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=message):
        evolution.step()
    assert same(before, everything(model, optimizer))
    with pytest.raises(ValueError, match=message):
        model[2].resize_topology(Topology.random(*model[2].topology.shape, nnz=0))
    assert model[2].nnz == 40


def test_a_layer_of_fixed_size_loads_no_other_size() -> None:
    layer, other = (tts.TrulySparseLinear(6, 5, nnz=nnz) for nnz in (12, 10))
    layer.nnz_fixed_by = "DistributedDataParallel"
    before = copy.deepcopy(layer.state_dict())
    with pytest.raises(ValueError, match="is fixed by DistributedDataParallel"):
        layer.load_state_dict(other.state_dict())
    assert all(map(torch.equal, before.values(), layer.state_dict().values()))


@both_twins
@pytest.mark.parametrize("nnz", [0, 1, 12, 30])
def test_a_layer_takes_a_topology_of_any_size(layer_type, nnz: int) -> None:
    layer = layer_type(6, 5, nnz=12, generator=seeded())
    parameter = layer.weight_parameter
    wanted = torch.randperm(30, generator=seeded(2))[:nnz].sort().values
    layer.resize_topology(Topology.from_positions(wanted, (5, 6)))
    layer.scatter_(layer.weight_parameter, torch.arange(1.0, nnz + 1))
    assert (layer.nnz, layer.weight_parameter) == (nnz, parameter)
    assert positions(layer) == wanted.tolist()
    dense = torch.zeros(30)
    dense[wanted] = torch.arange(1.0, nnz + 1)
    x = torch.randn(3, 6, requires_grad=True)
    output = layer(x)
    torch.testing.assert_close(output, x @ dense.view(5, 6).t() + layer.bias)
    output.sum().backward()
    assert layer.weight_parameter.grad.shape == layer.weight_parameter.shape
    with pytest.raises(ValueError, match=r"must have the shape \(5, 6\)"):
        layer.resize_topology(Topology.random(6, 5, nnz=3))
    assert positions(layer) == wanted.tolist()
