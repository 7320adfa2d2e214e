"""How connections are shared out among layers."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import subset_frequencies, valid_topology, z_of_chi_square
from small_layers import seeded

from torch_truly_sparse.topology import (
    Distribution,
    ErdosRenyi,
    FixedFanIn,
    Topology,
    Uniform,
    distribution,
)

SHAPES = [(300, 784), (100, 300), (10, 100), (1, 1), (0, 5), (7, 0)]
POSITIONS = [out * in_ for out, in_ in SHAPES]
DENSITIES = [0.0, 1e-4, 0.05, 0.1, 1 / 3, 0.9, 0.999, 1.0]
each_density = pytest.mark.parametrize("density", DENSITIES)


@each_density
def test_uniform_gives_every_layer_its_density(density):
    assert Uniform(density).counts(SHAPES) == [round(density * size) for size in POSITIONS]


@each_density
def test_erdos_renyi_hits_the_total_exactly_with_one_scale_for_all(density):
    counts = ErdosRenyi(density=density).counts(SHAPES)
    assert sum(counts) == round(density * sum(POSITIONS))
    partial = [
        (count, out + in_)
        for count, (out, in_), size in zip(counts, SHAPES, POSITIONS, strict=True)
        if count < size
    ]
    assert all(0 <= count <= size for count, size in zip(counts, POSITIONS, strict=True))
    scales = [count / units for count, units in partial]
    for (one, units), scale in zip(partial, scales, strict=True):
        assert abs(one - scales[0] * units) <= 1 + units / partial[0][1], scale
    for count, (out, in_), size in zip(counts, SHAPES, POSITIONS, strict=True):
        if partial and count == size and size:  # full only where its share would be more
            assert max(scales) * (out + in_) >= size - 1


def test_erdos_renyi_solves_the_scale_again_for_what_full_layers_leave():
    # By hand. 50 connections for 2 + 101 units: the first layer would get 0.97 of its 1.
    assert ErdosRenyi(density=0.5).counts([(1, 1), (1, 100)]) == [1, 49]
    # 8 for 2 + 3 + 6 units: the first would get 1.45 and is full. 7 for 3 + 6: the second would
    # get 2.33 and is full, too. The last has the 5 that are left.
    assert ErdosRenyi(density=8 / 11).counts([(1, 1), (1, 2), (2, 4)]) == [1, 2, 5]


def test_erdos_renyi_by_epsilon_is_that_of_each_layer():
    assert ErdosRenyi(epsilon=20).counts([(300, 784), (3, 4)]) == [21680, 12]


def test_erdos_renyi_counts_exactly_what_a_float_cannot():
    shapes = [(2**30, 2**30), (2**29, 2**31 - 1), (3, 5)]
    total = sum(out * in_ for out, in_ in shapes)
    assert sum(ErdosRenyi(density=0.5).counts(shapes)) == (total + 1) // 2


@pytest.mark.parametrize(("density", "fan_in"), [(0.0, 0), (0.01, 1), (0.1, 1), (0.3, 4), (1, 12)])
def test_a_fixed_fan_in_is_the_same_for_all_units(density, fan_in):
    [nnz] = FixedFanIn(density).counts([(5, 12)])
    assert nnz == 5 * fan_in
    indices = FixedFanIn(density).draw((5, 12), nnz, generator=seeded()).indices
    assert valid_topology(indices, 5, 12)
    assert torch.bincount(indices[0], minlength=5).tolist() == [fan_in] * 5


@pytest.mark.parametrize("size", [(0, 5, 2), (5, 0, 0), (4, 3, 0), (1, 1, 1), (300, 40, 39)])
def test_random_fixed_fan_in_at_the_edges(size):
    out_features, in_features, fan_in = size
    indices = Topology.random(*size[:2], fan_in=size[2], generator=seeded()).indices
    assert indices.shape == (2, out_features * fan_in)
    assert indices.dtype == torch.int32
    assert valid_topology(indices, out_features, in_features)


@pytest.mark.parametrize("fan_in", [1, 2, 3, 4])
def test_random_fixed_fan_in_gives_every_subset_equally_often(fan_in):
    rows = 6000
    indices = Topology.random(rows, 5, fan_in=fan_in, generator=seeded()).indices
    frequencies = subset_frequencies(list(indices[1].view(rows, fan_in).long()), 5)
    assert frequencies.sum() == rows
    subsets = math.comb(5, fan_in)
    assert abs(z_of_chi_square(frequencies, rows / subsets, subsets - 1)) < 4


def test_random_fixed_fan_in_follows_its_generator():
    one, same, other = (
        Topology.random(50, 60, fan_in=30, generator=seeded(seed)).indices for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_random_fixed_fan_in_names_a_fan_in_that_is_too_large():
    with pytest.raises(ValueError, match=r"`fan_in` must lie in \[0, in_features\] = \[0, 4\]"):
        Topology.random(3, 4, fan_in=5)


def test_the_largest_weights_are_chosen_of_the_layer_or_of_each_unit():
    weight = torch.tensor([[9.0, -8.0, 7.0], [1.0, -3.0, 2.0]])
    assert Uniform(0.5).largest(weight, 3).indices.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert FixedFanIn(2 / 3).largest(weight, 4).indices.tolist() == [[0, 0, 1, 1], [0, 1, 1, 2]]
    with pytest.raises(ValueError, match=r"`nnz` must be a multiple of out_features = 2"):
        FixedFanIn(0.5).largest(weight, 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, 0.1, None), Uniform(0.1)),
        ((None, None, 20), ErdosRenyi(epsilon=20)),
        (("uniform", 0.1, None), Uniform(0.1)),
        (("erdos_renyi", 0.1, None), ErdosRenyi(density=0.1)),
        (("erdos_renyi", None, 20), ErdosRenyi(epsilon=20)),
        (("fixed_fan_in", 0.1, None), FixedFanIn(0.1)),
        ((FixedFanIn(0.2), None, None), FixedFanIn(0.2)),
    ],
)
def test_distributions_by_name(given, expected):
    which, density, epsilon = given
    assert distribution(which, density=density, epsilon=epsilon) == expected


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (("uniform", None, None), TypeError, "exactly one of `density` and `epsilon`"),
        ((None, 0.1, 20), TypeError, "exactly one of `density` and `epsilon`"),
        (("uniform", None, 20), TypeError, "`epsilon` belongs to 'erdos_renyi'"),
        (("erk", 0.1, None), ValueError, "must be one of uniform, fixed_fan_in, erdos_renyi"),
        ((Uniform(0.1), 0.1, None), TypeError, "holds its own density"),
        ((0.1, 0.1, None), TypeError, "must be a name or a Distribution, got float"),
        (("uniform", 1.5, None), ValueError, r"`density` must lie in \[0, 1\], got 1.5"),
        (("erdos_renyi", float("nan"), None), ValueError, r"`density` must lie in \[0, 1\]"),
        (("erdos_renyi", None, -1), ValueError, "`epsilon` must be a finite number of at least 0"),
        (("fixed_fan_in", -0.1, None), ValueError, r"`density` must lie in \[0, 1\]"),
    ],
)
def test_a_wrong_distribution_says_what_is_expected(given, error, message):
    which, density, epsilon = given
    with pytest.raises(error, match=message):
        distribution(which, density=density, epsilon=epsilon)


def test_a_distribution_of_ones_own_only_counts():
    class OneEach(Distribution):
        def counts(self, shapes):
            return [out for out, _ in shapes]

    assert OneEach().count_at((4, 10), 0.5) == 20
    assert valid_topology(OneEach().draw((4, 10), 4, generator=seeded()).indices, 4, 10)
