"""Laws of evolution: what it keeps, when it happens, to which layers."""

import copy
import gc
import weakref

import pytest
import torch
from evolving_network import (
    both_twins,
    everything,
    network,
    positions,
    same,
    seeded,
    sgd,
    train_step,
    view,
)
from torch import nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse import Topology, rules

# What an evolution keeps

SHAPES = {  # in_features, out_features, nnz
    "typical": (30, 20, 100),
    "one_connection": (7, 5, 1),
    "no_connection": (7, 5, 0),
    "full": (7, 5, 35),
    "almost_full": (7, 5, 34),
    "one_input": (1, 40, 20),
    "one_output": (40, 1, 20),
    "one_position": (1, 1, 1),
    "no_inputs": (0, 5, 0),
    "beyond_32_bits": (100_000, 100_000, 200),
}


@pytest.mark.parametrize("prune", [rules.SignSplitMagnitude(), rules.MagnitudePrune()])
@pytest.mark.parametrize("fraction", [0, 0.3, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_topology_stays_sorted_unique_in_range_and_of_the_same_size(
    shape: str, fraction: float, prune: rules.PruneRule
) -> None:
    in_features, out_features, nnz = SHAPES[shape]
    layer = tts.TrulySparseLinear(in_features, out_features, nnz=nnz, generator=seeded())
    parameters, dtype = list(layer.parameters()), layer.indices.dtype
    evolution = tts.SparseEvolution(
        layer, sgd(layer), prune=prune, fraction=fraction, generator=seeded(1)
    )
    before = positions(layer)
    for _ in range(20):
        record = evolution.step()
        Topology.from_indices(layer.indices, (out_features, in_features))
        assert layer.nnz == layer.indices.shape[1] == record.layers[0].nnz == nnz
        assert record.pruned == record.regrown
    assert layer.indices.dtype == dtype
    assert list(map(id, layer.parameters())) == list(map(id, parameters))
    full = nnz == in_features * out_features
    assert (positions(layer) == before) == (full or record.pruned == 0)


@both_twins
def test_survivors_and_the_bias_keep_their_numbers(layer_type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    train_step(model, optimizer)
    layer = model[0]
    prune = rules.MagnitudePrune()
    weights = layer.gather(layer.weight_parameter.detach()).clone()
    kept = ~prune.select(view(layer), 0.3, generator=None)
    before = dict(zip(positions(layer), weights.tolist(), strict=True))
    survivors = torch.tensor(positions(layer))[kept].tolist()
    bias = layer.bias.clone()

    tts.SparseEvolution(model, optimizer, prune=prune).step()
    weights = layer.gather(layer.weight_parameter.detach())
    after = dict(zip(positions(layer), weights.tolist(), strict=True))
    assert [after[p] for p in survivors] == [before[p] for p in survivors]
    assert torch.equal(layer.bias, bias)


@both_twins
def test_accumulated_gradients_stay_with_their_connections(layer_type) -> None:
    def gradients(passes: list[int], evolve_after: int) -> dict[int, float]:
        """Add up gradients over some passes; the topology changes after one of them."""
        layer = layer_type(6, 5, nnz=20, dtype=torch.float64, generator=seeded())
        regrow = rules.RandomRegrow("zeros")
        evolution = tts.SparseEvolution(layer, sgd(layer), regrow=regrow, generator=seeded(9))
        for number in range(2):
            if number in passes:
                x = torch.randn(4, 6, dtype=torch.float64, generator=seeded(number))
                layer(x).sum().backward()
            if number == evolve_after:
                evolution.step()
        entries = layer.gather(layer.weight_parameter.grad)
        return dict(zip(positions(layer), entries.tolist(), strict=True))

    # The loss is linear: what a connection gets does not depend on the weights.
    first, second = gradients([0], evolve_after=1), gradients([1], evolve_after=0)
    total = gradients([0, 1], evolve_after=0)
    assert total == pytest.approx({p: first[p] + second[p] for p in total})
    assert 0.0 in first.values()  # those that grew had no gradient in the first pass


@both_twins
@pytest.mark.parametrize("requires_grad", [False, True])
def test_backward_through_a_graph_older_than_the_topology_raises(layer_type, requires_grad) -> None:
    model = network(layer_type)
    evolution = tts.SparseEvolution(model, sgd(model))
    loss = model(torch.randn(3, 12, requires_grad=requires_grad)).sum()
    evolution.step()
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation"):
        loss.backward()


def test_weights_shared_by_two_topologies_are_refused() -> None:
    model = nn.Sequential(*(tts.TrulySparseLinear(8, 8, nnz=20) for _ in range(2)))
    model[1].values = model[0].values
    with pytest.raises(ValueError, match=r"share"):
        tts.SparseEvolution(model, sgd(model))


# When it evolves


@pytest.mark.parametrize(
    ("every", "stop", "expected"),
    [
        (None, None, []),
        (3, None, [4, 7, 10]),
        (3, 7, [4, 7]),
        (3, 6, [4]),
        (3, 3, []),
        (6, None, [7]),
        (12, None, []),
        (1, None, list(range(2, 13))),
        (1, 3, [2, 3]),
    ],
)
def test_evolves_right_after_the_first_step_of_each_next_interval(every, stop, expected) -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, every=every, stop=stop)
    changed, before = [], positions(model[0])
    for step in range(1, 13):
        train_step(model, optimizer)
        if positions(model[0]) != before:
            changed.append(step)
        before = positions(model[0])
    assert changed == expected
    assert [record.step for record in evolution.history] == expected
    assert evolution.steps == 12


def test_an_evaluation_between_epochs_sees_the_trained_weights() -> None:
    """After every epoch the weights are those of training alone since the last evolution."""
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, every=4)
    for _ in range(3):
        for batch in range(4):
            train_step(model, optimizer, seed=batch)
            if batch == 0:
                untouched, other = copy.deepcopy((model, optimizer))  # without the hook
            elif batch < 3:
                train_step(untouched, other, seed=batch)
            else:
                with pytest.warns(UserWarning, match="their topology does not evolve"):
                    train_step(untouched, other, seed=batch)
        assert same(everything(model, optimizer), everything(untouched, other))
    assert len(evolution.history) == 2


def test_a_step_of_the_users_own_evolves_at_once() -> None:
    model = network()
    evolution = tts.SparseEvolution(model, sgd(model), every=None)
    before = positions(model[0])
    record = evolution.step()
    assert positions(model[0]) != before
    assert evolution.history == [record]


def test_a_removed_hook_evolves_no_more() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, every=1)
    for step in range(4):
        if step == 3:
            evolution.remove()
        train_step(model, optimizer)
    assert [record.step for record in evolution.history] == [2, 3]
    evolution.remove()
    assert evolution.step().step == 3


def test_the_hook_lives_as_long_as_the_optimizer_even_if_no_one_keeps_it() -> None:
    model = network()
    optimizer = sgd(model)
    reference = weakref.ref(tts.SparseEvolution(model, optimizer, every=1))
    gc.collect()
    before = positions(model[0])
    train_step(model, optimizer)
    train_step(model, optimizer)
    assert positions(model[0]) != before
    del optimizer, model
    gc.collect()
    assert reference() is None


def test_a_deep_copy_of_the_optimizer_does_not_evolve_the_model() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, every=1)
    other = copy.deepcopy(optimizer)
    for _ in range(3):
        other.step()
    assert evolution.steps == 0


def test_steps_through_a_scheduler_and_a_closure_count_once() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, every=2)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(5):
        optimizer.step(lambda: model(torch.ones(1, 12)).sum())
        scheduler.step()
    assert [record.step for record in evolution.history] == [3, 5]


# Which layers evolve


def test_two_evolutions_on_one_optimizer_keep_to_their_layers() -> None:
    model = network()
    optimizer = sgd(model)
    first = tts.SparseEvolution(model, optimizer, every=2, fraction=0.2, exclude=["2"])
    second = tts.SparseEvolution(model[2], optimizer, every=3, fraction=0.5)
    for _ in range(7):
        train_step(model, optimizer)
    assert [record.step for record in first.history] == [3, 5, 7]
    assert [record.step for record in second.history] == [4, 7]
    assert {layer.name for record in first.history for layer in record.layers} == {"0"}
    assert {layer.name for record in second.history for layer in record.layers} == {""}


def test_a_shared_layer_evolves_once() -> None:
    layer = tts.TrulySparseLinear(8, 8, nnz=20)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    record = tts.SparseEvolution(model, sgd(model), fraction=0.5).step()
    assert [entry.name for entry in record.layers] == ["0"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ([], ["body.0", "body.2", "head"]),
        (["head"], ["body.0", "body.2"]),
        (("*.0", "h*"), ["body.2"]),
    ],
)
def test_excluded_layers_stay_as_they_are(exclude, left) -> None:
    model = nn.ModuleDict({"body": network(), "head": tts.TrulySparseLinear(5, 6, nnz=10)})
    before = copy.deepcopy(model)
    tts.SparseEvolution(model, sgd(model), exclude=exclude).step()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, tts.nn.SparseLayer)}
    changed = [n for n, m in layers.items() if positions(m) != positions(before.get_submodule(n))]
    assert changed == left


def test_a_layer_excluded_under_one_of_its_names_is_left_alone() -> None:
    shared = tts.TrulySparseLinear(8, 8, nnz=20)
    model = nn.Sequential(shared, tts.TrulySparseLinear(8, 8, nnz=20), shared)
    evolution = tts.SparseEvolution(model, sgd(model), exclude=["2"])
    assert [layer.name for layer in evolution.step().layers] == ["1"]


@both_twins
def test_a_frozen_layer_is_left_alone(layer_type) -> None:
    model = network(layer_type)
    model[0].requires_grad_(False)
    before = positions(model[0])
    record = tts.SparseEvolution(model, sgd(model)).step()
    assert [layer.name for layer in record.layers] == ["2"]
    assert positions(model[0]) == before


def test_backward_through_the_weight_of_an_older_topology_raises() -> None:
    model = network()
    loss = model[0].weight.to_dense().square().sum()
    tts.SparseEvolution(model, sgd(model)).step()
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation"):
        loss.backward()
