from __future__ import annotations

import copy
import pickle

import pytest
import torch
from oracles import INDEX_DTYPES, MASKS, OperatorLog, random_mask, valid_topology
from small_layers import seeded
from torch import Tensor

from torch_truly_sparse.topology import Topology, count_connections, index_dtype

INT32_MAX = 2**31 - 1
each_index_dtype = pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)


# Coordinates


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@each_index_dtype
def test_valid_coordinates_are_accepted_as_they_are(mask, dtype):
    given = mask.nonzero().t().to(dtype)
    topology = Topology.from_indices(given, tuple(mask.shape))
    assert torch.equal(topology.indices, given.int())
    assert topology.indices.is_contiguous()
    assert torch.equal(topology.row_pointers[1:], mask.sum(1).cumsum(0))
    assert topology.row_pointers[0] == 0
    assert topology == Topology.from_mask(mask)


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([[0, 4], [0, 1]], r"\[:, 1\]` is \(4, 1\), whose output unit is outside .* = \[0, 4\)"),
        ([[0, 1], [5, 1]], r"\[:, 0\]` is \(0, 5\), whose input unit is outside .* = \[0, 5\)"),
        ([[-1, 1], [0, 1]], r"is \(-1, 0\), whose output unit is outside"),
        ([[0, 1], [0, -1]], r"is \(1, -1\), whose input unit is outside"),
        ([[0, INT32_MAX], [0, 0]], r"is \(2147483647, 0\), whose output unit is outside"),
        ([[1, 0], [0, 0]], r"must be sorted .* is \(0, 0\) after \(1, 0\); sort them together"),
        ([[1, 1], [3, 2]], r"must be sorted .* is \(1, 2\) after \(1, 3\)"),
        ([[0, 1, 1], [0, 2, 2]], r"must be unique, but .*2\]` is \(1, 2\) twice"),
    ],
)
@each_index_dtype
def test_the_first_offence_is_named(indices, text, dtype):
    with pytest.raises(ValueError, match=text):
        Topology.from_indices(torch.tensor(indices, dtype=dtype), (4, 5))


@pytest.mark.parametrize("offence", [2**31, 2**32, 2**62, -(2**31), -(2**63)])
@pytest.mark.parametrize("row", [0, 1])
def test_coordinates_that_no_int32_holds_are_refused_not_wrapped(offence, row):
    indices = torch.tensor([[0], [0]])
    indices[row] = offence
    with pytest.raises(ValueError, match="outside"):
        Topology.from_indices(indices, (4, 5))


@pytest.mark.usefixtures("_restores_threads")
def test_an_offence_is_found_wherever_it_is_in_a_topology_checked_in_parallel():
    torch.set_num_threads(2)
    indices = random_mask(400, 500, 100_000).nonzero().t().contiguous()
    Topology.from_indices(indices, (400, 500))
    for position in 1, 49_999, 50_000, 50_001, 99_999:
        broken = indices.clone()
        broken[:, position] = broken[:, position - 1]
        with pytest.raises(ValueError, match=rf"unique, but .*\[:, {position}\]"):
            Topology.from_indices(broken, (400, 500))


@pytest.mark.parametrize(
    ("indices", "error", "text"),
    [
        ([[0], [0]], TypeError, "`indices` must be a torch.Tensor, got list"),
        (torch.zeros(2, 1), TypeError, "`indices` must be int32 or int64, got torch.float32"),
        (torch.zeros(2, 1).short(), TypeError, "int32 or int64, got torch.int16"),
        (torch.zeros(2, 1).bool(), TypeError, "int32 or int64, got torch.bool"),
        (torch.zeros(2).long(), ValueError, r"shape \(2, nnz\), .* got \(2,\)"),
        (torch.zeros(3, 2).long(), ValueError, r"shape \(2, nnz\), .* got \(3, 2\)"),
        (torch.zeros(2, 1, 1).long(), ValueError, r"shape \(2, nnz\), .* got \(2, 1, 1\)"),
        (torch.ones(2, 1).long().to_sparse(), TypeError, "strided tensor, got layout"),
    ],
)
def test_what_is_no_topology_at_all_is_refused(indices, error, text):
    with pytest.raises(error, match=text):
        Topology.from_indices(indices, (4, 5))


def test_new_memory_only_where_something_changed():
    narrow = torch.tensor([[0, 1], [3, 2]], dtype=torch.int32)
    assert Topology.from_indices(narrow, (4, 5)).indices.data_ptr() == narrow.data_ptr()
    assert Topology.from_indices(narrow.long(), (4, 5)).indices.dtype == torch.int32
    assert Topology.from_indices(narrow.t().contiguous().t(), (4, 5)).indices.is_contiguous()


def test_the_narrowest_dtype_holds_every_index_and_every_count():
    assert index_dtype((INT32_MAX, INT32_MAX), INT32_MAX) == torch.int32
    for *shape, nnz in (INT32_MAX + 1, 1, 1), (1, INT32_MAX + 1, 1), (2**17, 2**17, INT32_MAX + 1):
        assert index_dtype(tuple(shape), nnz) == torch.int64


# Positions


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_positions_number_the_matrix_row_by_row(mask):
    topology = Topology.from_mask(mask)
    positions = topology.positions()
    assert torch.equal(positions, mask.flatten().nonzero().squeeze(1))
    assert positions.dtype == torch.int64
    assert Topology.from_positions(positions, topology.shape) == topology


def _corners(out_features: int, in_features: int) -> Tensor:
    rows = [0, 0, out_features // 2, out_features - 1, out_features - 1]
    columns = [0, in_features - 1, in_features // 3, 0, in_features - 1]
    return torch.tensor([rows, columns])


@pytest.mark.parametrize("size", [(50_000, 50_000), (2**21, 2**40), (3, 2**60), (2**22, 2**39)])
def test_positions_round_trip_beyond_32_bits(size):
    topology = Topology(_corners(*size).to(index_dtype(size, 5)), size)  # no row pointers wanted
    rows, columns = _corners(*size).tolist()
    assert topology.positions().tolist() == [
        r * size[1] + c for r, c in zip(rows, columns, strict=True)
    ]
    back = Topology.from_positions(topology.positions(), size)
    assert back == topology
    assert valid_topology(back.indices, *size)


@pytest.mark.parametrize(
    ("positions", "text"),
    [([0, 20], r"must lie in \[0, .*\) = \[0, 20\)"), ([-1], "must lie in"), ([3, 2], "sorted"),
     ([3, 3], "unique")],
)  # fmt: skip
def test_positions_that_are_no_topology_are_refused(positions, text):
    with pytest.raises(ValueError, match=text):
        Topology.from_positions(torch.tensor(positions), (4, 5))


# A value


@pytest.fixture
def topology() -> Topology:
    return Topology.from_mask(random_mask(6, 9, 20))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_what_is_derived_is_what_the_mask_says(mask):
    topology = Topology.from_mask(mask)
    assert topology.shape == tuple(mask.shape) == (topology.out_features, topology.in_features)
    assert topology.nnz == int(mask.sum())
    assert topology.density == (topology.nnz / mask.numel() if mask.numel() else 0.0)
    assert torch.equal(topology.fan_in(), mask.sum(1))
    assert torch.equal(topology.fan_out(), mask.sum(0))
    order = topology.transposed
    assert torch.equal(order.row_indices.long(), mask.t().nonzero()[:, 1])
    assert torch.equal(
        topology.indices[:, order.permutation.long()].flip(0).long(), mask.t().nonzero().t()
    )
    assert torch.equal(order.ccol_indices.diff(), mask.sum(0))


def test_it_is_derived_once(topology):
    row_pointers, order = topology.row_pointers, topology.transposed
    with OperatorLog() as ran:
        assert topology.row_pointers is row_pointers
        assert all(a is b for a, b in zip(topology.transposed, order, strict=True))
    assert not ran.names


@pytest.mark.parametrize(
    "name", ["indices", "shape", "nnz", "density", "row_pointers", "transposed"]
)
def test_nothing_can_be_assigned(topology, name):
    with pytest.raises(AttributeError):
        setattr(topology, name, getattr(topology, name))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_are_equal_and_share_no_memory(topology, copied):
    other = copied(topology)
    assert other == topology
    assert hash(other) == hash(topology)
    assert other.fingerprint() == topology.fingerprint()
    assert other.indices.data_ptr() != topology.indices.data_ptr()
    topology.indices[0, 0] += 1
    with pytest.raises(ValueError, match="changed in place"):
        _ = topology.indices
    assert valid_topology(other.indices, 6, 9)


def test_topologies_differ_by_shape_and_by_positions(topology):
    indices = topology.indices
    assert topology != Topology.from_indices(indices, (6, 10))
    assert topology != Topology.random(6, 9, nnz=20)
    assert topology != Topology.from_indices(indices[:, 1:], (6, 9))
    assert topology != indices.tolist()
    prints = {Topology.random(6, 9, nnz=20).fingerprint() for _ in range(50)}
    assert len(prints) == 50


def test_a_damaged_pickle_is_refused(topology):
    make, (indices, shape) = topology.__reduce__()
    with pytest.raises(ValueError, match="outside"):
        make(indices + 9, shape)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda t: t.from_indices(torch.zeros(2, 0).int(), 5), TypeError, "`shape` must be"),
        (lambda t: t.from_indices(torch.zeros(2, 0).int(), (5, 6, 7)), TypeError, "`shape` must"),
        (lambda t: t.from_indices(torch.zeros(2, 0).int(), (5.0, 6)), TypeError, "`out_features`"),
        (lambda t: t.from_indices(torch.zeros(2, 0).int(), (5, -6)), ValueError, "`in_features`"),
        (
            lambda t: t.from_indices(torch.zeros(2, 0).int(), (2**31, 2**31)),
            ValueError,
            "2\\*\\*62",
        ),
        (lambda t: t.from_positions([1, 2], (5, 6)), TypeError, "`positions` must be a torch.Ten"),
        (lambda t: t.from_positions(torch.zeros(2), (5, 6)), ValueError, "`positions` must have d"),
        (lambda t: t.from_positions(torch.zeros(2, 2).long(), (5, 6)), ValueError, "1 dimension"),
        (lambda t: t.from_mask(torch.ones(3)), ValueError, r"`mask` must be .* got \(3,\)"),
        (lambda t: t.from_mask([[1, 0]]), ValueError, "`mask` must be .* got list"),
        (lambda t: t.random(5, "6", nnz=1), TypeError, "`in_features` must be an int, got str"),
        (lambda t: t.random(-5, 6, nnz=0), ValueError, "must not be negative"),
    ],
)
def test_what_makes_no_topology_is_named(make, error, text):
    with pytest.raises(error, match=text):
        make(Topology)


@pytest.mark.parametrize("how", [{}, {"fan_in": 2, "nnz": 3}, {"density": 0.1, "epsilon": 1}])
def test_random_wants_exactly_one_count(how):
    with pytest.raises(TypeError, match="exactly one of"):
        Topology.random(6, 9, **how)


@pytest.mark.parametrize("how", [{"density": 0.25}, {"epsilon": 2}, {"nnz": 7}, {"fan_in": 3}])
def test_random_gives_what_was_asked_for_and_follows_its_generator(how):
    drawn = [Topology.random(6, 9, **how, generator=seeded(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert valid_topology(drawn[0].indices, 6, 9)
    counts = {"density": 14, "epsilon": 30, "nnz": 7, "fan_in": 18}  # 0.25 * 54 = 13.5, to even
    assert [drawn[0].nnz] == [counts[name] for name in how]


# Counts


@pytest.mark.parametrize(
    ("size", "how", "count"),
    [
        ((300, 784), {"density": 0.05}, 11_760),
        ((300, 784), {"density": 0}, 0),
        ((300, 784), {"density": 1}, 235_200),
        ((3, 5), {"density": 0.1}, round(1.5)),
        ((3, 5), {"density": 0.11}, 2),
        ((300, 784), {"epsilon": 20}, 21_680),
        ((300, 784), {"epsilon": 0}, 0),
        ((3, 5), {"epsilon": 0.45}, round(0.45 * 8)),
        ((3, 5), {"epsilon": 20}, 15),
        ((300, 784), {"nnz": 0}, 0),
        ((300, 784), {"nnz": 235_200}, 235_200),
        ((0, 784), {"density": 0.5}, 0),
        ((0, 784), {"epsilon": 20}, 0),
        ((10**6, 10**6), {"density": 1e-5}, 10**7),
        ((2**31 - 1, 2**31), {"nnz": 7}, 7),
    ],
)
def test_counts_are_rounded_to_the_nearest_and_capped(size, how, count):
    result = count_connections(*size, **how)
    assert result == count
    assert type(result) is int


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({}, TypeError, "exactly one of .* must be given, got none"),
        ({"density": 0.1, "nnz": 3}, TypeError, "got `density`, `nnz`"),
        ({"density": 0.0, "epsilon": 0}, TypeError, "got `density`, `epsilon`"),
        ({"density": 1.1}, ValueError, r"`density` must lie in \[0, 1\], got 1.1"),
        ({"density": -0.1}, ValueError, r"`density` must lie in \[0, 1\], got -0.1"),
        ({"density": float("nan")}, ValueError, r"`density` must lie in \[0, 1\], got nan"),
        ({"epsilon": -1}, ValueError, "`epsilon` must be a finite number of at least 0, got -1"),
        ({"epsilon": float("inf")}, ValueError, "`epsilon` must be a finite number"),
        ({"epsilon": float("nan")}, ValueError, "`epsilon` must be a finite number"),
        ({"nnz": 16}, ValueError, r"`nnz` must lie in .* = \[0, 15\], got 16"),
        ({"nnz": -1}, ValueError, r"`nnz` must lie in .* = \[0, 15\], got -1"),
        ({"nnz": 3.0}, TypeError, "`nnz` must be an int, got float"),
        ({"nnz": True}, TypeError, "`nnz` must be an int, got bool"),
    ],
)
def test_counts_that_make_no_sense_are_refused(how, error, text):
    with pytest.raises(error, match=text):
        count_connections(3, 5, **how)


def test_a_matrix_whose_positions_have_no_64_bit_number_is_refused():
    with pytest.raises(ValueError, match=r"must stay below 2\*\*62, got 4294967296 x 2147483648"):
        count_connections(2**31, 2**32, nnz=1)
    with pytest.raises(ValueError, match=r"2\*\*62"):
        count_connections(2**31, 2**31, nnz=1)


@pytest.mark.parametrize("size", [(-3, 4), (-3, -4)])
def test_negative_sizes_are_refused(size):
    with pytest.raises(ValueError, match="negative"):
        count_connections(*size, density=0.5)


def test_density_1_is_every_connection_of_the_largest_matrix():
    assert count_connections(1, 2**61 - 1, density=1.0) == 2**61 - 1
