"""Growth by paths of length three: the scores, and what is grown."""

from __future__ import annotations

import math

import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd, train_step, view
from torch import Tensor

import torch_truly_sparse as tts
from torch_truly_sparse import rules
from torch_truly_sparse.evolution import paths


def scores_in_words(mask: list[list[int]], u: int, v: int) -> float:
    """The definition, unit by unit."""
    outputs, inputs = range(len(mask)), range(len(mask[0]))
    on_paths = [
        (z1, z2)
        for z1 in inputs
        for z2 in outputs
        if mask[u][z1] and mask[z2][z1] and mask[z2][v] and z1 != v and z2 != u
    ]
    community_inputs = {v, *(z1 for z1, _ in on_paths)}
    community_outputs = {u, *(z2 for _, z2 in on_paths)}
    total = 0.0
    for z1, z2 in on_paths:
        leaves_1 = sum(mask[o][z1] for o in outputs if o not in community_outputs)
        leaves_2 = sum(mask[z2][i] for i in inputs if i not in community_inputs)
        total += 1 / math.sqrt((1 + leaves_1) * (1 + leaves_2))
    return total


def random_mask(outputs: int, inputs: int, density: float, seed: int) -> Tensor:
    return (torch.rand(outputs, inputs, generator=seeded(seed)) < density).long()


@pytest.mark.parametrize("at_a_time", [1, 10, 1_000_000])
@pytest.mark.parametrize("density", [0.0, 0.1, 0.3, 0.8])
@pytest.mark.parametrize("shape", [(7, 9), (12, 4), (1, 5), (6, 1)])
def test_scores_are_those_of_the_definition(
    shape: tuple[int, int], density: float, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "_PATHS_AT_A_TIME", at_a_time)
    mask = random_mask(*shape, density, seed=len(str(shape)))
    connections = mask.flatten().nonzero().flatten()
    empty = (mask.flatten() == 0).nonzero().flatten()
    empty = empty[torch.randperm(len(empty), generator=seeded())]
    found = paths.path_scores(connections, empty, *shape)
    wanted = [scores_in_words(mask.tolist(), p // shape[1], p % shape[1]) for p in empty.tolist()]
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert len(found) == len(empty)


def test_the_highest_scores_grow_where_all_positions_are_candidates() -> None:
    mask = random_mask(8, 10, 0.3, seed=1)
    layer = tts.TrulySparseLinear(10, 8, nnz=int(mask.sum()))
    survivors = mask.flatten().nonzero().flatten()
    empty = (mask.flatten() == 0).nonzero().flatten()
    scores = [scores_in_words(mask.tolist(), p // 10, p % 10) for p in empty.tolist()]
    grown = rules.CannistraciHebbRegrow(candidates=100).select(
        view(layer), survivors, 5, generator=seeded()
    )
    assert grown.tolist() == sorted(grown.tolist())
    of = dict(zip(empty.tolist(), scores, strict=True))
    lowest = min(of[position] for position in grown.tolist())
    assert lowest == pytest.approx(sorted(scores, reverse=True)[4])


def test_equal_scores_grow_anywhere() -> None:
    """Without connections no position has a path: each is as likely as the others."""
    layer = tts.TrulySparseLinear(4, 3, nnz=6)
    none, counts = torch.empty(0, dtype=torch.long), torch.zeros(12)
    rule = rules.CannistraciHebbRegrow(candidates=100)
    for seed in range(600):
        counts[rule.select(view(layer), none, 2, generator=seeded(seed))] += 1
    assert counts.sum() == 1200
    assert counts.min() > 60
    assert counts.max() < 140


@both_twins
def test_a_network_evolves_and_keeps_its_count(layer_type: type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    before = [model[0].nnz, model[2].nnz]
    evolution = tts.SparseEvolution(
        model, optimizer, regrow="cannistraci_hebb", every=2, generator=seeded()
    )
    for seed in range(7):
        train_step(model, optimizer, seed)
    assert len(evolution.history) == 3
    assert [model[0].nnz, model[2].nnz] == before


def test_paths_make_triangles_of_what_was_there() -> None:
    """Two groups that are connected within: growth stays within them."""
    mask = torch.zeros(20, 20, dtype=torch.long)
    mask[:10, :10] = random_mask(10, 10, 0.4, seed=2)
    mask[10:, 10:] = random_mask(10, 10, 0.4, seed=3)
    layer = tts.TrulySparseLinear(20, 20, nnz=int(mask.sum()))
    grown = rules.CannistraciHebbRegrow(candidates=100).select(
        view(layer), mask.flatten().nonzero().flatten(), 30, generator=seeded()
    )
    rows, columns = grown // 20, grown % 20
    assert ((rows < 10) == (columns < 10)).all()


@pytest.mark.parametrize("candidates", [0, -1.0, math.inf, math.nan])
def test_candidates_out_of_range_are_refused(candidates: float) -> None:
    with pytest.raises(ValueError, match="`candidates` must be a finite number above 0"):
        rules.CannistraciHebbRegrow(candidates=candidates)
