"""A topology change puts every connection, and what follows it, where a dictionary would."""

import random

import pytest
import torch

from torch_truly_sparse import Topology

# out_features, in_features, connections before, dropped, regrown
CASES = {
    "typical": (13, 7, 40, 12, 12),
    "nothing_dropped": (5, 6, 10, 0, 0),
    "only_grown": (5, 6, 10, 0, 7),
    "only_dropped": (5, 6, 10, 7, 0),
    "all_dropped": (5, 6, 10, 10, 10),
    "all_dropped_none_grown": (5, 6, 10, 10, 0),
    "full": (5, 6, 30, 9, 9),
    "one_position": (1, 1, 1, 1, 1),
    "empty": (4, 3, 0, 0, 0),
    "grown_from_nothing": (4, 3, 0, 0, 5),
    "no_positions": (0, 3, 0, 0, 0),
    "one_row": (1, 50, 20, 6, 6),
    "one_column": (50, 1, 20, 6, 6),
    "beyond_32_bits": (10**6, 10**6, 50, 20, 20),
}


def draw(case: str, seed: int) -> tuple[list[int], list[bool], list[int]]:
    """Draw positions before the change, which of them are dropped, and positions that regrow."""
    out_features, in_features, nnz, dropped, regrown = CASES[case]
    source = random.Random(seed)
    before = sorted(source.sample(range(out_features * in_features), nnz))
    gone = set(source.sample(before, dropped))
    kept = set(before) - gone
    grown: set[int] = set()
    while len(grown) < regrown:
        grown |= {source.randrange(out_features * in_features)} - kept
    return before, [position in gone for position in before], sorted(grown)


def topology(positions: list[int], out_features: int, in_features: int) -> Topology:
    numbers = torch.tensor(positions, dtype=torch.int64)
    return Topology.from_positions(numbers, (out_features, in_features))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_replace_and_move_agree_with_a_dictionary(case: str, seed: int) -> None:
    out_features, in_features, *_ = CASES[case]
    before, dropped, grown = draw(case, seed)
    entry = {position: float(i) for i, position in enumerate(before)}
    fresh = {position: -1.0 - i for i, position in enumerate(grown)}
    kept = [position for position, gone in zip(before, dropped, strict=True) if not gone]

    gone = torch.tensor(dropped, dtype=torch.bool)
    present = topology(before, out_features, in_features)
    change = present.replace(gone, torch.tensor(grown, dtype=torch.int64))
    after = sorted(kept + grown)
    assert change.topology == topology(after, out_features, in_features)
    assert present == topology(before, out_features, in_features)
    assert (change.source < 0).tolist() == [position in fresh for position in after]
    assert present.survivors(gone, len(kept)).tolist() == kept

    entries = torch.tensor(list(entry.values()))
    moved = change.move(entries, torch.tensor(list(fresh.values())))
    expected = {**entry, **fresh}  # a position that came back starts afresh
    assert moved.tolist() == [expected[position] for position in after]
    same = change.move(entries, 9.0)
    assert same.tolist() == [9.0 if p in fresh else entry[p] for p in after]
    assert entries.tolist() == list(entry.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_move_keeps_the_dtype_and_makes_new_memory(dtype: torch.dtype) -> None:
    none = torch.zeros(2, dtype=torch.bool)
    change = topology([1, 4], 2, 3).replace(none, torch.empty(0, dtype=torch.int64))
    entries = torch.tensor([5, 6], dtype=dtype)
    moved = change.move(entries, 0.0)
    assert moved.dtype == dtype
    assert torch.equal(moved, entries)
    assert moved.data_ptr() != entries.data_ptr()


@pytest.mark.parametrize(
    ("regrown", "message"),
    [
        ([1, 4], "among those that survive"),
        ([2, 0], "increasing and distinct"),
        ([2, 2], "increasing and distinct"),
        ([-1, 2], r"\[0, out_features \* in_features\)"),
        ([2, 6], r"\[0, out_features \* in_features\)"),
    ],
)
def test_replace_refuses_positions_that_do_not_fit(regrown: list[int], message: str) -> None:
    dropped = torch.tensor([True, False, True, False])
    with pytest.raises(ValueError, match=message):
        topology([0, 1, 2, 3], 2, 3).replace(dropped, torch.tensor(regrown))


@pytest.mark.parametrize("present", [[[1, 0], [0, 0]], [[0, 0], [1, 1]], [[0, 2], [0, 0]]])
def test_a_topology_damaged_since_its_check_has_no_next_one(
    present: list[list[int]],
) -> None:
    none, nothing = torch.zeros(2, dtype=torch.bool), torch.empty(0, dtype=torch.int64)
    damaged = topology([0, 1], 2, 3)
    damaged.indices.data.copy_(torch.tensor(present))  # behind the back of torch's own counting
    with pytest.raises(ValueError, match=r"sorted|must lie in"):
        damaged.replace(none, nothing)
