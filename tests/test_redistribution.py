"""Connections move between layers, and the network keeps its number, exactly."""

import copy
import random

import pytest
import torch
from evolving_network import both_twins, everything, network, same, seeded, sgd, train_step, view
from torch import optim

import torch_truly_sparse as tts
from torch_truly_sparse.evolution.redistribution import share_out
from torch_truly_sparse.rules import Redistribution


@pytest.mark.parametrize("seed", range(200))
def test_shares_are_proportional_capped_and_exact(seed: int) -> None:
    source = random.Random(seed)
    layers = source.randrange(1, 6)
    room = [source.choice([0, 1, 5, 50]) for _ in range(layers)]
    shares = [source.choice([0.0, 1e-9, source.random(), 7.0]) for _ in range(layers)]
    total = source.randint(0, sum(room))
    counts = share_out(total, shares, room)
    assert sum(counts) == total
    assert all(0 <= count <= most for count, most in zip(counts, room, strict=True))
    # Those with room left have got what their shares say, to a rounding; the full ones no more.
    open_ = [i for i in range(layers) if counts[i] < room[i]]
    rates = [counts[i] / shares[i] for i in open_ if shares[i]]
    for i in open_:
        for j in open_:
            if shares[i] and shares[j]:
                slack = 1 / shares[i] + 1 / shares[j]
                assert abs(counts[i] / shares[i] - counts[j] / shares[j]) <= slack
    for i in range(layers):
        if counts[i] == room[i] and room[i] and shares[i] and rates:
            assert (counts[i] - 1) / shares[i] <= max(rates) + max(
                1 / shares[k] for k in open_ if shares[k]
            )


@pytest.mark.parametrize(
    ("total", "shares", "room", "expected"),
    [
        (10, [3, 1, 1], [9, 9, 9], [6, 2, 2]),
        (10, [3, 1, 1], [4, 9, 9], [4, 3, 3]),
        (10, [1.26, 3.7, 5.04], [9, 9, 9], [1, 4, 5]),  # the largest remainder is rounded up
        (7, [1, 1], [9, 9], [4, 3]),  # the first layer wins a tie
        (7, [0, 0], [9, 9], [4, 3]),
        (7, [5, 0], [3, 9], [3, 4]),
        (0, [1, 2], [0, 0], [0, 0]),
        (0, [], [], []),
        (2**40, [1e300, 1e-300], [2**39, 2**41], [2**39, 2**39]),
    ],
)
def test_shares_by_hand(total, shares, room, expected) -> None:
    assert share_out(total, shares, room) == expected


@pytest.mark.parametrize(
    ("total", "shares", "message"),
    [
        (1, [-1.0, 1], "finite numbers of at least 0"),
        (1, [float("nan"), 1], "finite numbers of at least 0"),
        (9, [1, 1], "`total` must be at most the room of 8, got 9"),
    ],
)
def test_what_cannot_be_shared_is_refused(total, shares, message) -> None:
    with pytest.raises(ValueError, match=message):
        share_out(total, shares, [4, 4])


class Favour(Redistribution):
    """Gives everything to one layer."""

    def __init__(self, name: str) -> None:
        self.name = name

    def importance(self, view) -> float:
        return float(view.name == self.name)


@both_twins
def test_a_favoured_layer_grows_until_it_is_full_and_the_rest_goes_elsewhere(layer_type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    train_step(model, optimizer)
    evolution = tts.SparseEvolution(
        model, optimizer, prune="magnitude", redistribute=Favour("2"), fraction=0.5
    )
    sizes = [(72, 40)]
    for step in range(5):
        evolution.step()
        sizes.append((model[0].nnz, model[2].nnz))
        train_step(model, optimizer, seed=step)
    assert {sum(size) for size in sizes} == {112}
    assert sizes[1] == (36, 76)
    assert sizes[2] == (18, 94)
    assert sizes[-1] == (12, 100)  # full: 20 x 5


@both_twins
def test_shares_follow_the_mean_momentum(layer_type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model, optimizer, prune="magnitude", redistribute="momentum", fraction=0.25
    )
    train_step(model, optimizer)
    for layer, size in ((model[0], 3.0), (model[2], 1.0)):
        signs = torch.where(torch.arange(layer.nnz) % 2 == 0, size, -size)
        layer.scatter_(optimizer.state[layer.weight_parameter]["momentum_buffer"], signs)
    record = evolution.step()
    assert [layer.pruned for layer in record.layers] == [18, 10]
    assert [layer.regrown for layer in record.layers] == [21, 7]
    assert (model[0].nnz, model[2].nnz) == (75, 37)


@pytest.mark.usefixtures("_restores_threads")
def test_the_number_of_threads_changes_no_bit_of_the_mean() -> None:
    for seed in range(8):
        nnz = 20_000 + 37_003 * seed
        layer = tts.TrulySparseLinear(2000, 2000, nnz=nnz, generator=seeded())
        optimizer = sgd(layer)
        momentum = torch.randn(nnz, generator=seeded(seed))
        optimizer.state[layer.values]["momentum_buffer"] = momentum
        means = set()
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            means.add(tts.rules.MomentumRedistribution().importance(view(layer, optimizer)))
        assert len(means) == 1


def test_adams_first_moment_is_momentum_and_plain_sgd_has_none() -> None:
    model = network()
    adam = optim.Adam(model.parameters())
    evolution = tts.SparseEvolution(model, adam, redistribute="momentum")
    before = everything(model, adam)
    with pytest.raises(ValueError, match="layer '0' has no momentum in Adam: use SGD"):
        evolution.step()  # no step has been made
    assert same(before, everything(model, adam))
    train_step(model, adam)
    evolution.step()
    assert model[0].nnz + model[2].nnz == 112

    plain = optim.SGD(model.parameters(), lr=0.1)
    train_step(model, plain)
    with pytest.raises(ValueError, match=r"no momentum in SGD: use SGD\(momentum="):
        tts.SparseEvolution(model, plain, redistribute="momentum").step()


def test_sparse_momentum_keeps_the_networks_number_of_connections() -> None:
    model = network(scale=2)
    optimizer = sgd(model)
    total = model[0].nnz + model[2].nnz
    evolution = tts.SparseMomentum(
        model, optimizer, total_steps=24, every=4, steps=3, generator=seeded()
    )
    sizes = set()
    for step in range(24):
        train_step(model, optimizer, seed=step)
        sizes.add((model[0].nnz, model[2].nnz))
    assert len(evolution.history) == 5
    assert len(sizes) > 2
    assert {sum(size) for size in sizes} == {total}


@pytest.mark.parametrize(
    ("importance", "error", "message"),
    [
        (float("nan"), ValueError, "`importance of layer '2'` must be a finite number of at"),
        (-1, ValueError, "`importance of layer '2'` must be a finite number of at least 0, got -1"),
        (None, TypeError, "`importance of layer '2'` must be a number, got NoneType"),
    ],
)
def test_an_importance_that_is_none_names_the_layer_and_changes_nothing(
    importance, error, message
) -> None:
    class Wrong(Redistribution):
        def importance(self, view) -> float:
            return importance if view.name == "2" else 1.0

    model = network()
    before = copy.deepcopy(model.state_dict())
    evolution = tts.SparseEvolution(model, sgd(model), redistribute=Wrong())
    with pytest.raises(error, match=message):
        evolution.step()
    assert all(torch.equal(before[key], now) for key, now in model.state_dict().items())
