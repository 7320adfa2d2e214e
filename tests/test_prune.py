"""Prune rules drop exactly what a brute-force oracle drops, ties and zeros included."""

from dataclasses import dataclass
from itertools import combinations

import pytest
import torch
from evolving_network import both_twins, seeded, view, view_of
from oracles import z_of_chi_square
from torch import Tensor

import torch_truly_sparse as tts
from torch_truly_sparse import rules
from torch_truly_sparse.rules import LayerView, PruneRule

NORMAL = torch.randn(101, generator=torch.Generator().manual_seed(0))
WEIGHTS = {
    "normal": NORMAL,
    "ties": (2 * NORMAL).round(),  # a few distinct magnitudes of both signs, zeros among them
    "all_equal": torch.ones(10),
    "all_zero": torch.zeros(10),
    "negative_zero": torch.tensor([-0.0, 1.0, 0.0, -1.0, -0.0]),
    "all_positive": NORMAL.abs(),
    "all_negative": -NORMAL.abs(),
    "infinite": torch.tensor([torch.inf, -1.0, 2.0, -torch.inf]),
    "one": torch.tensor([-3.0]),
    "empty": torch.empty(0),
}
FRACTIONS = [0, 0.01, 0.3, 0.5, 0.95, 1]


def smallest(candidates: list[int], weights: list[float], fraction: float) -> set[int]:
    ranked = sorted(candidates, key=lambda i: abs(weights[i]))  # stable: of equal ones, the first
    return set(ranked[: round(fraction * len(candidates))])


def magnitude(weights: list[float], fraction: float) -> set[int]:
    return smallest(list(range(len(weights))), weights, fraction)


def sign_split(weights: list[float], fraction: float) -> set[int]:
    sides = (
        [i for i, w in enumerate(weights) if w >= 0],
        [i for i, w in enumerate(weights) if w < 0],
    )
    return set.union(*(smallest(side, weights, fraction) for side in sides))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize(
    ("rule", "oracle"),
    [(rules.MagnitudePrune(), magnitude), (rules.SignSplitMagnitude(), sign_split)],
)
def test_rule_drops_what_its_oracle_drops(
    rule: PruneRule, oracle, kind: str, fraction: float, dtype: torch.dtype
) -> None:
    weights = WEIGHTS[kind].to(dtype)
    view = view_of(weights)
    dropped = rule.select(view, fraction, generator=None)
    assert dropped.dtype == torch.bool
    assert dropped.shape == weights.shape
    assert set(dropped.nonzero().flatten().tolist()) == oracle(weights.tolist(), fraction)
    assert torch.equal(view.weights, weights)


@pytest.mark.parametrize("kind", WEIGHTS)
def test_sign_split_keeps_the_balance_of_signs(kind: str) -> None:
    weights = WEIGHTS[kind]
    dropped = rules.SignSplitMagnitude().select(view_of(weights), 0.3, generator=None)
    negative = weights < 0
    assert dropped[negative].sum() == round(0.3 * int(negative.sum()))
    assert dropped[~negative].sum() == round(0.3 * int((~negative).sum()))


@pytest.mark.parametrize("rule", [rules.MagnitudePrune(), rules.SignSplitMagnitude()])
def test_shipped_rules_draw_nothing(rule: PruneRule) -> None:
    generator = torch.Generator().manual_seed(0)
    view = view_of(NORMAL)
    default, given = torch.get_rng_state(), generator.get_state()
    rule.select(view, 0.5, generator=generator)
    assert torch.equal(torch.get_rng_state(), default)
    assert torch.equal(generator.get_state(), given)


@dataclass(frozen=True)
class LargestPrune(PruneRule):
    """Drops the largest weights: a rule as a user writes it."""

    def select(
        self, view: LayerView, fraction: float, *, generator: torch.Generator | None
    ) -> Tensor:
        weights = view.weights
        dropped = torch.zeros_like(weights, dtype=torch.bool)
        dropped[weights.abs().topk(round(fraction * len(weights))).indices] = True
        return dropped


def test_a_rule_of_the_users_own_prunes() -> None:
    layer = tts.TrulySparseLinear(9, 7, nnz=20, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    kept = layer.values.detach().abs().sort().values[:15]
    regrow = rules.RandomRegrow(init="zeros")
    tts.SparseEvolution(layer, optimizer, prune=LargestPrune(), regrow=regrow, fraction=0.25).step()
    after = layer.values.detach().abs().sort().values
    assert torch.equal(after, torch.cat([torch.zeros(5), kept]))


@pytest.mark.parametrize("rule", [rules.MagnitudePrune(), rules.SignSplitMagnitude()], ids=repr)
def test_weights_that_are_not_numbers_count_as_largest_and_the_count_stays_exact(rule) -> None:
    weights = torch.tensor([float("nan"), 0.1, float("inf"), 0.2])
    assert rule.select(view_of(weights), 0.5, generator=None).tolist() == [False, True, False, True]
    assert rule.select(view_of(torch.full((4,), float("nan"))), 1.0, generator=None).all()


# With gradients, and at random


@both_twins
@pytest.mark.parametrize("gradient_weight", [0.0, 0.5, 1.0, 100.0])
@pytest.mark.parametrize("fraction", [0, 0.3, 1])
def test_magnitude_gradient_drops_the_smallest_sums(layer_type, gradient_weight, fraction) -> None:
    layer = layer_type(9, 7, nnz=30, dtype=torch.float64, generator=seeded())
    layer(torch.randn(5, 9, dtype=torch.float64)).square().sum().backward()
    seen = view(layer)
    scores = (seen.weights.abs() + gradient_weight * seen.gradient.abs()).tolist()
    weights, gradient = seen.weights.clone(), seen.gradient.clone()
    dropped = rules.MagnitudeGradientPrune(gradient_weight).select(seen, fraction, generator=None)
    assert set(dropped.nonzero().flatten().tolist()) == magnitude(scores, fraction)
    assert torch.equal(seen.weights, weights)
    assert torch.equal(seen.gradient, gradient)


def test_magnitude_gradient_without_a_gradient_says_so_and_changes_nothing() -> None:
    layer = tts.TrulySparseLinear(9, 7, nnz=20)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(layer, optimizer, prune="magnitude_gradient")
    before = layer.indices.clone()
    with pytest.raises(ValueError, match="has no gradient: evolve after a backward pass"):
        evolution.step()
    assert torch.equal(layer.indices, before)


@pytest.mark.parametrize("weight", [-1.0, torch.inf, torch.nan])
def test_a_gradient_weight_out_of_range_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="`gradient_weight` must be a finite number of at least 0"):
        rules.MagnitudeGradientPrune(weight)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_random_prune_drops_an_exact_number(fraction: float) -> None:
    view = view_of(NORMAL)
    dropped = rules.RandomPrune().select(view, fraction, generator=seeded())
    assert int(dropped.sum()) == round(fraction * 101)
    again = rules.RandomPrune().select(view, fraction, generator=seeded())
    assert torch.equal(dropped, again)


def test_random_prune_drops_every_pair_equally_often() -> None:
    view, generator = view_of(torch.ones(5)), seeded()
    counts = dict.fromkeys(combinations(range(5), 2), 0)
    for _ in range(1000):
        pair = (
            rules.RandomPrune().select(view, 0.4, generator=generator).nonzero().flatten().tolist()
        )
        counts[tuple(pair)] += 1
    observed = torch.tensor(list(counts.values()))
    assert abs(z_of_chi_square(observed, 100.0, 9)) < 4
