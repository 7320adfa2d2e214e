"""Random topologies: exact, reproducible, uniform. Statistics are sums over fixed seeds."""

from __future__ import annotations

from functools import cache
from math import comb

import pytest
import torch
from oracles import subset_frequencies, valid_topology, z_of_chi_square
from torch import Tensor

from torch_truly_sparse.ops import sample
from torch_truly_sparse.topology import Topology, draw_seed, random_empty_positions

LEAF = 512  # draws in a leaf of the sampler's tree (csrc/kernels/sample.h): beyond it, it divides
FAR = 4.5  # standard deviations; a fair sampler passes this once in 150,000 seeds


# Exact, whatever the sizes (for `sample` itself see operators.py)


def test_different_seeds_draw_different_samples():
    seeds = [0, 1, 2, 2**32, 2**32 + 1, -1, -(2**63)]
    draws = {tuple(sample(10**6, 1000, seed).tolist()) for seed in seeds}
    assert len(draws) == len(seeds)


@pytest.mark.parametrize("size", [(1, 1), (30, 40), (0, 5), (5, 0), (700, 900)])
@pytest.mark.parametrize("density", [0, 0.001, 0.3, 1])
def test_topologies_have_exactly_the_connections_asked_for(size, density):
    nnz = round(density * size[0] * size[1])
    indices = Topology.random(*size, nnz=nnz).indices
    assert indices.shape == (2, nnz)
    assert indices.dtype == torch.int32
    assert valid_topology(indices, *size)


def test_a_topology_takes_no_memory_of_the_shape_of_the_matrix():
    # A byte for each position would be a terabyte.
    indices = Topology.random(10**6, 10**6, nnz=1000).indices
    assert valid_topology(indices, 10**6, 10**6)
    # Both coordinates reach all over the matrix: 1000 draws miss a tenth once in 10^45.
    assert (torch.histc(indices.float(), 10, 0, 10**6) > 0).all()


def test_a_topology_follows_from_its_generator_alone():
    drawn = [
        Topology.random(30, 40, nnz=100, generator=torch.Generator().manual_seed(seed)).indices
        for seed in (5, 5, 6)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_global_generator_is_used_without_one_and_left_alone_with_one(generator):
    before = torch.get_rng_state()
    Topology.random(30, 40, nnz=100, generator=generator)
    assert torch.equal(torch.get_rng_state(), before)
    first = Topology.random(30, 40, nnz=100).indices
    torch.set_rng_state(before)
    assert torch.equal(Topology.random(30, 40, nnz=100).indices, first)
    assert not torch.equal(Topology.random(30, 40, nnz=100).indices, first)


def test_seeds_use_all_64_bits():
    seeds = torch.tensor([draw_seed(None) for _ in range(200)])
    for bit in range(64):
        assert 60 < ((seeds >> bit) & 1).sum() < 140


def test_a_generator_that_is_none_is_a_type_error():
    with pytest.raises(TypeError, match=r"`generator` must be a torch.Generator or None, got int"):
        Topology.random(3, 4, nnz=5, generator=0)


# Uniform


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_every_subset_of_a_small_population_is_equally_likely(count):
    draws = [sample(6, count, seed) for seed in range(6000)]
    observed = subset_frequencies(draws, 6)
    assert observed.sum() == len(draws)
    assert abs(z_of_chi_square(observed, len(draws) / comb(6, count), comb(6, count) - 1)) < FAR


def test_every_topology_of_a_small_layer_is_equally_likely():
    draws = []
    for _ in range(6000):
        rows, columns = Topology.random(2, 3, nnz=2).indices.long()
        draws.append(rows * 3 + columns)
    assert abs(z_of_chi_square(subset_frequencies(draws, 6), len(draws) / 15, 14)) < FAR


# Counts beyond LEAF: a tree of depth 2 to 4, of odd sizes; sparse, half full, nearly full.
DIVIDED = [(100_003, 2100), (3001, 1501), (3001, 2900), (5000, 4999)]
PARTS = [1 / 2, 1 / 4, 0.3]
DRAWS = 2500


@cache
def divided_samples(population: int, count: int) -> tuple[Tensor, Tensor]:
    """How often each position was drawn, and how many of each draw fell into each of PARTS."""
    observed = torch.zeros(population if population < 10**6 else 1, dtype=torch.int64)
    ends = torch.tensor([int(population * part) for part in PARTS])
    inside = torch.empty((DRAWS, len(PARTS)), dtype=torch.float64)
    for seed in range(DRAWS):
        drawn = sample(population, count, seed)
        inside[seed] = torch.searchsorted(drawn, ends)
        if len(observed) > 1:
            observed[drawn] += 1
    return observed, inside


@pytest.mark.parametrize(("population", "count"), DIVIDED)
def test_every_position_is_equally_likely_in_a_divided_sample(population, count):
    observed, _ = divided_samples(population, count)
    share = count / population
    # A position is in or out: its variance is DRAWS share (1 - share), and the counts sum to a
    # constant, which correlates them by -1 / (population - 1).
    scaled = ((observed - DRAWS * share) ** 2).sum() / (DRAWS * share * (1 - share))
    freedom = population - 1
    z = (scaled.item() * freedom / population - freedom) / (2 * freedom) ** 0.5
    assert abs(z) < FAR


@pytest.mark.parametrize(("population", "count"), [*DIVIDED, (2**60, 2100)])
@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_divided_sample_are_hypergeometric(population, count, part):
    inside = divided_samples(population, count)[1][:, PARTS.index(part)]
    share = int(population * part) / population
    rest = (population - count) / (population - 1)
    mean, variance = count * share, count * share * (1 - share) * rest
    assert abs(inside.mean().item() - mean) < FAR * (variance / DRAWS) ** 0.5
    if variance > 5:  # near enough to normal to know the deviation of a sample variance
        assert abs(inside.var().item() / variance - 1) < FAR * (2 / (DRAWS - 1)) ** 0.5


@pytest.mark.parametrize(("population", "count"), [(1201, 601), (1025, 1020), (1999, 515)])
def test_the_first_division_has_the_exact_distribution(population, count):
    draws = 4000
    left = population // 2
    weights = torch.tensor(
        [comb(left, k) * comb(population - left, count - k) / comb(population, count)
         for k in range(min(left, count) + 1)], dtype=torch.float64
    )  # fmt: skip
    inside = torch.stack(
        [torch.searchsorted(sample(population, count, seed), left) for seed in range(draws)]
    )
    observed = torch.bincount(inside, minlength=len(weights))
    common = weights * draws >= 10
    observed = torch.cat([observed[common], observed[~common].sum()[None]])
    expected = torch.cat([weights[common], weights[~common].sum()[None]]) * draws
    possible = expected > 0
    assert (observed[~possible] == 0).all()
    z = z_of_chi_square(observed[possible], expected[possible], int(possible.sum()) - 1)
    assert abs(z) < FAR


@pytest.mark.parametrize("distance", [1, 750, 1500])
def test_any_two_positions_are_drawn_together_equally_often(distance):
    # Half of a population, and a quarter, are what the tree's nodes lie apart.
    population, count, draws = 3000, 1500, 1000
    together = torch.empty(draws, dtype=torch.float64)
    drawn = torch.zeros(population, dtype=torch.bool)
    for seed in range(draws):
        drawn.zero_()[sample(population, count, seed)] = True
        together[seed] = (drawn[distance:] & drawn[:-distance]).sum()
    share = count * (count - 1) / (population * (population - 1))
    expected = (population - distance) * share
    assert abs(together.mean().item() - expected) < FAR * together.std().item() / draws**0.5


# Positions that are empty


def _complement(occupied: Tensor, population: int) -> Tensor:
    free = torch.ones(population, dtype=torch.bool)
    free[occupied] = False
    return free.nonzero().squeeze(1)


@pytest.mark.parametrize("population", [1, 10, 1000, 100_000])
@pytest.mark.parametrize("occupied_share", [0, 0.1, 0.5, 0.99, 1])
@pytest.mark.parametrize("drawn_share", [0, 0.5, 1])
def test_empty_positions_are_empty(population, occupied_share, drawn_share):
    occupied = sample(population, round(population * occupied_share), seed=1)
    free = _complement(occupied, population)
    count = round(len(free) * drawn_share)
    drawn = random_empty_positions(occupied, population, count)
    assert drawn.shape == (count,)
    assert (drawn.diff() > 0).all()
    assert torch.isin(drawn, free, assume_unique=True).all()
    if drawn_share == 1:
        assert torch.equal(drawn, free)


@pytest.mark.parametrize("occupied", [[], [0], [7], [1, 4, 5], [0, 1, 2], [5, 6, 7], [0, 7]])
def test_every_subset_of_the_empty_positions_is_equally_likely(occupied):
    occupied = torch.tensor(occupied, dtype=torch.int64)
    free = _complement(occupied, 8)
    draws = [random_empty_positions(occupied, 8, 2) for _ in range(3000)]
    ranks = [torch.searchsorted(free, drawn) for drawn in draws]
    subsets = comb(len(free), 2)
    observed = subset_frequencies(ranks, len(free))
    assert abs(z_of_chi_square(observed, len(draws) / subsets, subsets - 1)) < FAR


def test_empty_positions_of_a_huge_matrix_take_no_memory_of_its_shape(generator):
    occupied = sample(10**12, 1000, seed=0)
    drawn = random_empty_positions(occupied, 10**12, 1000, generator=generator)
    assert torch.cat([occupied, drawn]).unique().shape == (2000,)
    assert drawn.max() < 10**12


def test_more_than_there_are_empty_positions_is_refused():
    with pytest.raises(ValueError, match="`count` must be between 0 and"):
        random_empty_positions(torch.tensor([0, 1]), 3, 2)


@pytest.mark.parametrize("size", [(-2, -3), (2**40, 2**40)])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(ValueError, match="out_features"):
        Topology.random(*size, nnz=2)
