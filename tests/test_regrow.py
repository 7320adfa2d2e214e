"""Random regrowth: exact counts, uniform over the empty positions, weights as documented."""

from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from evolving_network import seeded, view
from torch import Tensor

import torch_truly_sparse as tts
from torch_truly_sparse import Topology, rules
from torch_truly_sparse.rules import RegrowRule


def layer_of(out_features: int, in_features: int, nnz: int = 0) -> tts.TrulySparseLinear:
    return tts.TrulySparseLinear(in_features, out_features, nnz=nnz, generator=seeded())


def p_value(counts: Tensor) -> float:
    """Chance of counts at least as uneven as these, were all outcomes equally likely."""
    expected = counts.sum() / counts.numel()
    statistic = ((counts - expected).square() / expected).sum()
    half_freedom = torch.tensor((counts.numel() - 1) / 2)
    return torch.special.gammaincc(half_freedom, statistic / 2).item()


# Where grows what

SURVIVORS = {
    "none": [],
    "first": [0],
    "last": [11],
    "ends": [0, 11],
    "block": [4, 5, 6, 7],
    "spread": [1, 3, 8, 9],
    "all_but_one": [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11],
    "all": list(range(12)),
}


@pytest.mark.parametrize("survivors", SURVIVORS.values(), ids=SURVIVORS)
def test_any_number_grows_and_only_at_empty_positions(survivors: list[int]) -> None:
    layer, occupied = layer_of(3, 4), torch.tensor(survivors, dtype=torch.int64)
    for count in range(12 - len(survivors) + 1):
        grown = rules.RandomRegrow().select(view(layer), occupied, count, generator=seeded(count))
        assert grown.dtype == torch.int64
        assert grown.shape == (count,)
        assert grown.tolist() == sorted(set(grown.tolist()) - set(survivors))
        assert all(0 <= position < 12 for position in grown.tolist())
    assert grown.tolist() == sorted(set(range(12)) - set(survivors))  # exactly what was empty


def test_more_than_the_empty_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="count"):
        rules.RandomRegrow().select(view(layer_of(3, 4)), torch.arange(10), 3, generator=seeded())


@pytest.mark.parametrize("survivors", [[], [0, 5, 11], [1, 3, 8, 9]], ids=str)
def test_every_pair_of_empty_positions_is_equally_likely(survivors: list[int]) -> None:
    layer, occupied = layer_of(3, 4), torch.tensor(survivors, dtype=torch.int64)
    empty = sorted(set(range(12)) - set(survivors))
    counts = dict.fromkeys(combinations(empty, 2), 0)
    generator = seeded()
    for _ in range(60 * len(counts)):
        pair = rules.RandomRegrow().select(view(layer), occupied, 2, generator=generator).tolist()
        counts[tuple(pair)] += 1
    assert p_value(torch.tensor(list(counts.values()), dtype=torch.float64)) > 1e-3


def test_each_empty_position_of_a_large_layer_is_equally_likely() -> None:
    layer = layer_of(300, 200, nnz=30_000)
    occupied = layer.topology.positions()
    grown, generator = torch.zeros(60_000), seeded()
    for _ in range(20):
        grown[rules.RandomRegrow().select(view(layer), occupied, 6_000, generator=generator)] += 1
    empty = torch.ones(60_000, dtype=torch.bool)
    empty[occupied] = False
    assert grown[~empty].sum() == 0
    # 120 stretches of 250 empty positions; draws without replacement vary less than chi-square.
    assert p_value(grown[empty].view(120, 250).sum(1)) > 1e-3


def test_positions_beyond_32_bits_are_reached() -> None:
    layer = layer_of(10**5, 10**5)
    occupied = torch.arange(0, 10**10, 10**7)
    grown = rules.RandomRegrow().select(view(layer), occupied, 1_000, generator=seeded())
    assert not torch.isin(grown, occupied).any()
    assert grown.diff().gt(0).all()
    assert p_value(torch.histc(grown.double(), bins=10, min=0, max=10**10)) > 1e-3


def test_a_connection_that_was_just_dropped_may_return() -> None:
    layer = layer_of(3, 4, nnz=12)  # full: the dropped positions are the only empty ones
    before = layer.indices.clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(layer, optimizer, regrow=rules.RandomRegrow("zeros"))
    record = evolution.step()
    assert torch.equal(layer.indices, before)
    assert (layer.values == 0).sum() == record.regrown > 0


# With which weight


def drawn(init: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Draw weights for a third of a topology, with the fans that its units have."""
    layer = tts.TrulySparseLinear(400, 500, nnz=100, dtype=dtype, generator=seeded())
    # Uneven: unit i is connected with a probability that grows with i.
    chance = torch.linspace(0.1, 0.9, 400) * torch.linspace(0.1, 0.9, 500)[:, None]
    present = torch.rand(500, 400, generator=seeded(1)) < chance
    topology = Topology.from_mask(present)
    connections = topology.indices[:, ::3]
    rule = rules.RandomRegrow(init)
    weights = rule.draw_weights(view(layer), connections, topology, generator=seeded(2))
    fan_in = present.sum(1)[connections[0].long()].to(dtype)
    fan_out = present.sum(0)[connections[1].long()].to(dtype)
    return weights, fan_in, fan_out


def check_moments(sample: Tensor, variance: float, fourth_moment: float) -> None:
    """Mean and variance within 5 standard errors; any two neighbours are uncorrelated."""
    n = sample.numel()
    assert abs(sample.mean()) < 5 * (variance / n) ** 0.5
    assert abs(sample.var() - variance) < 5 * ((fourth_moment - variance**2) / n) ** 0.5
    assert abs((sample[1:] * sample[:-1]).mean()) < 5 * variance / n**0.5


def test_set_normal_has_deviation_a_tenth() -> None:
    weights, *_ = drawn("set_normal")
    check_moments(weights, 0.1**2, 3 * 0.1**4)
    assert 0.67 < (weights.abs() < 0.1).double().mean() < 0.70  # 68.3 % of a normal


@pytest.mark.parametrize("init", ["he_uniform", "xavier_uniform"])
def test_uniform_fills_the_bounds_of_the_fans_that_are_there(init: str) -> None:
    weights, fan_in, fan_out = drawn(init)
    fans = fan_in if init == "he_uniform" else fan_in + fan_out
    unit = weights / (6 / fans).sqrt()
    assert 0.999 < unit.abs().max() <= 1
    check_moments(unit, 1 / 3, 1 / 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "init", ["set_normal", "linear_uniform", "he_uniform", "xavier_uniform", "zeros"]
)
def test_weights_have_the_dtype_of_the_layer(init: str, dtype: torch.dtype) -> None:
    weights, *_ = drawn(init, dtype)
    assert weights.dtype == dtype
    assert weights.isfinite().all()
    assert (init == "zeros") == weights.eq(0).all()


@pytest.mark.parametrize(
    "init", ["set_normal", "linear_uniform", "he_uniform", "xavier_uniform", "zeros"]
)
def test_no_connections_get_no_weights(init: str) -> None:
    none = Topology.random(4, 3, nnz=0)
    weights = rules.RandomRegrow(init).draw_weights(
        view(layer_of(3, 4)), none.indices, none, generator=None
    )
    assert weights.shape == (0,)


@dataclass
class Recorder:
    """An initializer that keeps what it was asked, and draws 1, 2, 3, ..."""

    asked: tuple[Tensor, Topology] | None = None

    def draw(self, connections, topology, *, dtype, generator) -> Tensor:
        self.asked = connections.clone(), topology
        return torch.arange(1, connections.shape[1] + 1, dtype=dtype)


def test_an_initializer_sees_the_new_connections_and_the_new_topology() -> None:
    layer, init = layer_of(6, 5, nnz=14), Recorder()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    tts.SparseEvolution(
        layer,
        optimizer,
        prune=rules.MagnitudePrune(),
        regrow=rules.RandomRegrow(init),
        fraction=0.5,
    ).step()
    connections, topology = init.asked
    assert topology == layer.topology
    position = layer.topology.positions().tolist().index
    slots = [position(p) for p in (connections[0] * 5 + connections[1]).tolist()]
    assert layer.values[slots].tolist() == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [("he", ValueError, "must be one of he_uniform"), (0.1, TypeError, "method `draw`")],
)
def test_an_unknown_init_is_refused_at_once(init: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        rules.RandomRegrow(init)


@dataclass(frozen=True)
class FirstEmptyRegrow(RegrowRule):
    """Grows at the lowest empty positions: a rule as a user writes it."""

    weight: float

    def select(self, view, survivors, count, *, generator) -> Tensor:
        empty = torch.ones(view.out_features * view.in_features, dtype=torch.bool)
        empty[survivors] = False
        return empty.nonzero().flatten()[:count]

    def draw_weights(self, view, connections, topology, *, generator) -> Tensor:
        return torch.full((connections.shape[1],), self.weight, dtype=view.dtype)


def test_a_rule_of_the_users_own_regrows() -> None:
    layer = layer_of(6, 5, nnz=10)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(layer, optimizer, regrow=FirstEmptyRegrow(7.0), fraction=1.0)
    evolution.step()
    assert layer.topology.positions().tolist() == list(range(10))
    assert layer.values.tolist() == [7.0] * 10
