"""The operators on topologies and their positions, for the table of operators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import product_entries
import torch
from operator_entry import PIECE, SERIAL_VISITS, IllFormed, Operator, Sample
from oracles import INDEX_DTYPES, MASKS, Matrix
from product_entries import POINTERS_OUTSIDE, TOPOLOGY, damaged, large_matrix, rows_of
from torch import Tensor

from torch_truly_sparse.ops.compress import compress_again_reference, compress_reference
from torch_truly_sparse.ops.merge import merge_reference
from torch_truly_sparse.ops.move import move_reference
from torch_truly_sparse.ops.positions import (
    empty_positions_reference,
    from_positions_reference,
    to_positions_reference,
)
from torch_truly_sparse.ops.transpose import transpose_reference

INT = torch.int32


# compress and transpose


@cache
def matrices() -> list[tuple[str, Matrix]]:
    masks = {**MASKS, **product_entries.MATRICES}
    return [
        (f"{name} {index}", Matrix.of_mask(mask, index=index))
        for name, mask in masks.items()
        for index in INDEX_DTYPES
    ]


@cache
def to_compress() -> list[Sample]:
    return [Sample(name, (w.indices, *w.dense.shape)) for name, w in matrices()]


@cache
def to_transpose() -> list[Sample]:
    return [Sample(name, (w.crow, w.col, w.dense.shape[1])) for name, w in matrices()]


LARGE = [(300, 500), (700, 900), (3000, 200), (100_000, 300), (50_000, 40_000)]


@cache
def large_to_compress() -> list[Sample]:
    found = []
    for size in LARGE:
        for index in INDEX_DTYPES:
            w = large_matrix(*size, torch.float32, index)
            indices = torch.stack([rows_of(w["crow"]).to(index), w["col"]])
            arguments, nnz = (indices, *size), len(w["col"])
            found.append(Sample(f"{size} {index}", arguments, nnz, by_oracle=False))
    return found


@cache
def large_to_transpose() -> list[Sample]:
    found = []
    for size in LARGE:
        for index in INDEX_DTYPES:
            w = large_matrix(*size, torch.float32, index)
            arguments = (w["crow"], w["col"], size[1])
            found.append(Sample(f"{size} {index}", arguments, by_oracle=False))
    return found


def compress_oracle(indices: Tensor, out_features: int, in_features: int) -> Tensor:
    rows = indices[0].tolist()
    before = [0] * (out_features + 1)
    for row in rows:
        before[row + 1] += 1
    for row in range(out_features):
        before[row + 1] += before[row]
    return torch.tensor(before)


def transpose_oracle(crow: Tensor, col: Tensor, in_features: int) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = rows_of(crow).tolist(), col.tolist()
    order = sorted(range(len(columns)), key=lambda k: (columns[k], rows[k]))
    before = [sum(c < column for c in columns) for column in range(in_features + 1)]
    return (
        torch.tensor(before),
        torch.tensor([rows[k] for k in order], dtype=col.dtype),
        torch.tensor(order, dtype=col.dtype),
    )


def ill_formed_topologies() -> Iterator[IllFormed]:
    good = torch.tensor([[0, 1, 1], [3, 0, 2]])
    for index in INDEX_DTYPES:
        for indices, text in [
            ([[0, 1, 2], [3, 0, 2]], r"`indices\[:, 2\]` is \(2, 2\).* \[0, out_features\)"),
            ([[-1, 1, 1], [3, 0, 2]], r"`indices\[:, 0\]` is \(-1, 3\).* \[0, out_features\)"),
            ([[0, 1, 1], [3, 0, 4]], r"`indices\[:, 2\]` is \(1, 4\).* \[0, in_features\)"),
            ([[0, 1, 1], [3, -5, 2]], r"`indices\[:, 1\]` is \(1, -5\).* \[0, in_features\)"),
            ([[1, 0, 1], [3, 0, 2]], "`indices` must be sorted"),
            ([[0, 1, 1], [3, 2, 0]], "`indices` must be sorted"),
            ([[0, 1, 1], [3, 2, 2]], "`indices` must be unique"),
        ]:
            yield IllFormed(f"{indices} {index}", (torch.tensor(indices).to(index), 2, 4), text)
        # The last of many, where the check is split.
        w = large_matrix(300, 500, torch.float32, index)
        many = torch.stack([rows_of(w["crow"]).to(index), w["col"]])
        for position in (len(w["col"]) // 2, len(w["col"]) - 1):
            twice = many.clone()
            twice[:, position] = twice[:, position - 1]
            yield IllFormed(f"{position} twice", (twice, 300, 500), "`indices` must be unique")
    for wrong, text in [
        (good.float(), "must be .*int32 or .*int64"),
        (good.short(), "must be .*int32 or .*int64"),
        (good[0], r"must have 2 dimension\(s\), got 1"),
        (good.t().contiguous(), "must have size 2"),
    ]:
        yield IllFormed(text, (wrong, 2, 4), f"`indices` {text}")
    yield IllFormed("rows below 0", (good[:, :0], -1, 4), "`out_features` must not be negative")
    yield IllFormed("columns below 0", (good[:, :0], 2, -1), "`in_features` must not be negative")
    for name, size in ("out_features", (2**63 - 1, 4)), ("in_features", (2, 2**63 - 1)):
        yield IllFormed(f"{name} too large", (good[:, :0], *size), f"`{name}` must stay below")


def ill_formed_orders() -> Iterator[IllFormed]:
    for index in INDEX_DTYPES:
        w = product_entries.matrix("17x33-typical", torch.float32, index)
        crow, col = w["crow"], w["col"]
        for position in (0, len(col) // 2, len(col) - 1):
            for bad in product_entries.OUTSIDE:
                wrong = damaged(col, position, bad)
                yield IllFormed(f"col[{position}] = {bad}", (crow, wrong, 33), TOPOLOGY)
        for row in (0, 8, 17):
            for bad in POINTERS_OUTSIDE:
                wrong = damaged(crow, row, bad)
                yield IllFormed(f"crow[{row}] = {bad}", (wrong, col, 33), TOPOLOGY)
        for wrong in (crow[:-1], crow[1:]):
            yield IllFormed("rows left out", (wrong, col, 33), TOPOLOGY)
        yield IllFormed("no columns", (crow, col, 0), TOPOLOGY)
    for arguments, text in [
        ((crow.int(), col, 33), "`crow_indices` must have dtype"),
        ((crow[:0], col, 33), "`crow_indices` must have one entry more"),
        ((crow[None], col, 33), r"`crow_indices` must have 1 dimension\(s\), got 2"),
        ((crow, col.float(), 33), "`col_indices` must be .*int32 or .*int64"),
        ((crow, col[None], 33), r"`col_indices` must have 1 dimension\(s\), got 2"),
        ((crow, col, -1), "`in_features` must not be negative"),
    ]:
        yield IllFormed(text, arguments, text)


# The next topology. out_features, in_features, connections, share dropped, regrown.

SMALL = {
    "small": (7, 9, 30, 0.3, 9),
    "none": (7, 9, 0, 0.0, 0),
    "from nothing": (7, 9, 0, 0.0, 40),
    "to nothing": (7, 9, 40, 1.0, 0),
    "one": (1, 1, 1, 1.0, 1),
    "full": (30, 40, 1200, 0.3, 360),
    "eight": (5, 5, 8, 0.5, 4),
    "around a word": (20, 30, 65, 0.5, 17),
    "one piece": (500, 400, PIECE, 0.3, 9_830),
    "nearly 62 bits": (2**31 - 1, 2**31 - 2, 3_000, 0.5, 900),
}
MANY = {
    "a piece and one": (500, 400, PIECE + 1, 0.3, 9_831),
    "three pieces": (500, 400, 80_000, 0.3, 40_000),
    "few of many": (500, 400, 80_000, 0.0, 1),
    "beyond 32 bits": (10**6, 10**7, 70_000, 0.5, 35_000),
}


def distinct(population: int, count: int, seed: int) -> Tensor:
    """Distinct numbers of [0, population), increasing."""
    generator = torch.Generator().manual_seed(seed)
    if population < 2**20:
        return torch.randperm(population, generator=generator)[:count].sort().values
    drawn = torch.randint(population, (2 * count + 10,), generator=generator).unique()
    return drawn[torch.randperm(len(drawn), generator=generator)[:count]].sort().values


Case = dict[str, Any]


@cache
def change(name: str, index: torch.dtype, large: bool = False) -> Case:
    """A topology, what it loses, and what it gets, by the names of the arguments below."""
    out_features, in_features, nnz, share, count = (MANY if large else SMALL)[name]
    population = out_features * in_features
    before = distinct(population, nnz, seed=1)
    dropped = torch.rand(nnz, generator=torch.Generator().manual_seed(2)) < share
    if population < 2**20:
        free = torch.ones(population, dtype=torch.bool)
        free[before[~dropped]] = False
        empty = free.nonzero().squeeze(1)
        regrown = empty[distinct(len(empty), count, seed=3)]
    else:
        drawn = distinct(population, 2 * count, seed=3)
        regrown = drawn[~torch.isin(drawn, before)][:count]
    survivors = int((~dropped).sum())
    generator = torch.Generator().manual_seed(4)
    return {
        "indices": torch.stack([before // in_features, before % in_features]).to(index),
        "positions": before,
        "kept": before[~dropped],
        "dropped": dropped,
        "regrown": regrown,
        "survivors": survivors,
        "ranks": distinct(population - survivors, len(regrown), seed=4),
        "entries": torch.randn(nnz, generator=generator),
        "fresh": torch.randn(len(regrown), generator=generator),
        "out_features": out_features,
        "in_features": in_features,
        "narrow": index == INT,
    }


def changes(large: bool) -> Iterator[tuple[str, Case]]:
    for name in MANY if large else SMALL:
        for index in INDEX_DTYPES:
            yield f"{name} {index}", change(name, index, large)


def with_work(samples: list[Sample], large: bool) -> list[Sample]:
    """The samples that fill more than a piece, or all of them."""
    return [sample for sample in samples if not large or sample.work > PIECE]


MERGED = ("indices", "dropped", "regrown", "survivors", "out_features", "in_features", "narrow")


@cache
def to_merge(large: bool = False) -> list[Sample]:
    found = []
    for name, case in changes(large):
        for narrow in {case["narrow"], False}:
            given = tuple({**case, "narrow": narrow}[key] for key in MERGED)
            work = max(len(case["dropped"]), len(case["regrown"]))
            found.append(Sample(f"{name}, {narrow}", given, work, by_oracle=not large))
    return with_work(found, large)


@cache
def to_number(large: bool = False) -> list[Sample]:
    found = []
    for name, case in changes(large):
        indices, in_features, nnz = case["indices"], case["in_features"], len(case["dropped"])
        for kind, dropped, count in (
            ("all", None, nnz),
            ("kept", case["dropped"], case["survivors"]),
        ):
            arguments = (indices, dropped, count, in_features)
            found.append(Sample(f"{name} {kind}", arguments, nnz, by_oracle=not large))
    return with_work(found, large)


@cache
def to_split(large: bool = False) -> list[Sample]:
    found = []
    for name, case in changes(large):
        size = case["out_features"], case["in_features"]
        for kind, positions in ("", case["positions"]), ("falling", case["positions"].flip(0)):
            arguments = (positions, *size, case["narrow"])
            work = len(positions)
            found.append(Sample(f"{name} {kind}", arguments, work, by_oracle=not large))
    return with_work(found, large)


@cache
def to_rank(large: bool = False) -> list[Sample]:
    found = []
    for name, case in changes(large):
        if case["narrow"]:
            arguments = (case["kept"], case["ranks"])
            found.append(Sample(name, arguments, len(case["ranks"]), by_oracle=not large))
    return with_work(found, large)


MOVED = [
    torch.bool,
    torch.uint8,
    torch.int16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.float32,
    torch.int64,
    torch.float64,
    torch.complex64,
]


@cache
def to_move(large: bool = False) -> list[Sample]:
    found = []
    for name, case in changes(large):
        given = tuple(case[key] for key in MERGED)
        source = merge_oracle(*given)[1]
        for dtype in MOVED if not large or name.startswith("three") else [torch.float32]:
            entries, new = case["entries"].mul(9).to(dtype), case["fresh"].mul(9).to(dtype)
            one = torch.tensor(-3.0).to(dtype)
            for kind, fresh in ("", new), ("one for all", one):
                arguments = (entries, source, fresh)
                label, work = f"{name} {dtype} {kind}", len(source)
                found.append(Sample(label, arguments, work, by_oracle=not large))
    return with_work(found, large)


def merge_oracle(
    indices: Tensor,
    dropped: Tensor,
    regrown: Tensor,
    survivors: int,
    out_features: int,
    in_features: int,
    narrow: bool,
) -> tuple[Tensor, Tensor]:
    present = enumerate(zip(*indices.tolist(), dropped.tolist(), strict=True))
    came = {row * in_features + column: k for k, (row, column, gone) in present if not gone}
    came |= {position: ~g for g, position in enumerate(regrown.tolist())}
    order = sorted(came)
    dtype = torch.int32 if narrow else torch.int64
    following = [[p // in_features for p in order], [p % in_features for p in order]]
    return torch.tensor(following, dtype=dtype), torch.tensor([came[p] for p in order], dtype=dtype)


def to_positions_oracle(
    indices: Tensor, dropped: Tensor | None, count: int, in_features: int
) -> Tensor:
    gone = [False] * indices.shape[1] if dropped is None else dropped.tolist()
    pairs = zip(*indices.tolist(), gone, strict=True)
    kept = [row * in_features + column for row, column, drop in pairs if not drop]
    return torch.tensor(kept, dtype=torch.int64)


def from_positions_oracle(
    positions: Tensor, out_features: int, in_features: int, narrow: bool
) -> Tensor:
    pairs = [divmod(position, in_features) for position in positions.tolist()]
    dtype = torch.int32 if narrow else torch.int64
    return torch.tensor([[row for row, _ in pairs], [column for _, column in pairs]], dtype=dtype)


def empty_positions_oracle(occupied: Tensor, ranks: Tensor) -> Tensor:
    found, before, taken = [], 0, occupied.tolist()
    for rank in ranks.tolist():
        while before < len(taken) and taken[before] <= rank + before:
            before += 1
        found.append(rank + before)
    return torch.tensor(found, dtype=torch.int64)


def move_oracle(entries: Tensor, source: Tensor, fresh: Tensor) -> Tensor:
    held, new = entries.tolist(), fresh.tolist()
    moved = [
        held[s] if s >= 0 else new[~s] if isinstance(new, list) else new for s in source.tolist()
    ]
    return torch.tensor(moved, dtype=entries.dtype)


def ill_formed_merges() -> Iterator[IllFormed]:
    case = change("small", INT)
    held = int(case["kept"][3])
    none = torch.empty(0, dtype=torch.int64)
    swapped, twice, outside = (case["indices"].clone() for _ in range(3))
    swapped[:, [3, 4]] = swapped[:, [4, 3]]
    twice[:, 4] = twice[:, 3]
    outside[1, 4] = 9
    nothing_dropped = {"dropped": torch.zeros(30, dtype=torch.bool), "survivors": 30}
    wrong: list[tuple[Case, str]] = [
        ({"indices": case["indices"][0]}, r"`indices` must have 2 dimension\(s\), got 1"),
        ({"indices": case["indices"][:1]}, "`indices` must have size 2"),
        ({"indices": case["indices"].float()}, "`indices` must be .*int32 or .*int64"),
        ({"indices": swapped, "regrown": none, **nothing_dropped}, "`indices` must be sorted"),
        ({"indices": twice, "regrown": none, **nothing_dropped}, "`indices` must be sorted"),
        ({"indices": outside, "regrown": none, **nothing_dropped}, TOPOLOGY),
        ({"dropped": torch.zeros(29, dtype=torch.bool)}, "`dropped` must have size 30"),
        ({"dropped": torch.zeros(30)}, "`dropped` must have dtype"),
        ({"dropped": torch.zeros(30, dtype=torch.uint8)}, "`dropped` must have dtype"),
        ({"survivors": case["survivors"] - 1}, "`survivors` must be"),
        ({"survivors": -(2**60)}, "`survivors` must be"),
        ({"regrown": torch.tensor([3, 3])}, "regrown .* increasing and distinct"),
        ({"regrown": torch.tensor([5, 3])}, "regrown .* increasing and distinct"),
        ({"regrown": torch.tensor([-1])}, r"regrown .* \[0, out_features \* in_features\)"),
        ({"regrown": torch.tensor([63])}, r"regrown .* \[0, out_features \* in_features\)"),
        ({"regrown": torch.tensor([held])}, "regrown .* must not be among those that survive"),
        ({"regrown": torch.tensor([1], dtype=INT)}, "`regrown` must have dtype"),
        ({"regrown": none[None]}, r"`regrown` must have 1 dimension\(s\), got 2"),
        ({"out_features": -7, "regrown": none}, "`out_features` must not be negative"),
        ({"in_features": -7, "regrown": none}, "`in_features` must not be negative"),
        ({"out_features": 2**62, "regrown": none}, r"`out_features` .*below 2\*\*63"),
        ({"in_features": 0, "regrown": none}, "indices|in_features"),
        ({"out_features": 2**31, "in_features": 9, "regrown": none}, "`narrow` must be False"),
    ]
    for change_of, text in wrong:
        yield IllFormed(text, tuple({**case, **change_of}[key] for key in MERGED), text)


def ill_formed_positions() -> Iterator[IllFormed]:
    two = torch.zeros(2, 2, dtype=INT)
    mask = torch.zeros(2, dtype=torch.bool)
    for arguments, text in [
        ((torch.zeros(3, 2).int(), None, 2, 5), "`indices` must have size 2"),
        ((two[0], None, 2, 5), r"`indices` must have 2 dimension\(s\), got 1"),
        ((two.float(), None, 2, 5), "`indices` must be .*int32 or .*int64"),
        ((two, None, 3, 5), "`count` must be 2"),
        ((two, None, -(2**62), 5), "`count` must be 2"),
        ((two, ~mask, 1, 5), "`count` must be 0"),
        ((two, mask[1:], 2, 5), "`dropped` must have size 2"),
        ((two, mask.int(), 2, 5), "`dropped` must have dtype"),
    ]:
        yield IllFormed(text, arguments, text)


def ill_formed_numbers() -> Iterator[IllFormed]:
    def at(*positions: int) -> Tensor:
        return torch.tensor(positions)

    for arguments, text in [
        ((at(6), 2, 3, True), r"`positions` must lie in \[0, .* \[0, 6"),
        ((at(-1), 2, 3, False), r"`positions` must lie in \[0, .* \[0, 6"),
        ((at(0), 0, 3, False), r"`positions` must lie in \[0, .* \[0, 0"),
        ((at(0, 1, -(2**63), 2), 2, 3, False), r"`positions` must lie in \[0, .* \[0, 6"),
        ((at(0), 2**31, 1, True), "`narrow` must be False"),
        ((at(0), 1, 2**31, True), "`narrow` must be False"),
        ((at(0), -1, 3, True), "`out_features` must not be negative"),
        ((at(0), 3, -1, True), "`in_features` must not be negative"),
        ((at(0), 2**40, 2**40, False), r"`in_features` times `out_features` .*below 2\*\*63"),
        ((at(0).int(), 2, 3, True), "`positions` must have dtype"),
        ((at(0)[None], 2, 3, True), r"`positions` must have 1 dimension\(s\), got 2"),
    ]:
        yield IllFormed(text, arguments, text)


def ill_formed_ranks() -> Iterator[IllFormed]:
    for arguments, text in [
        ((torch.tensor([0]), torch.zeros(1)), "`ranks` must have dtype"),
        ((torch.tensor([0]), torch.tensor([[0]])), r"`ranks` must have 1 dimension\(s\), got 2"),
        ((torch.tensor([0]).int(), torch.tensor([0])), "`occupied` must have dtype"),
        ((torch.tensor(0), torch.tensor([0])), r"`occupied` must have 1 dimension\(s\), got 0"),
    ]:
        yield IllFormed(text, arguments, text)


def ill_formed_moves() -> Iterator[IllFormed]:
    two, one, first = torch.zeros(2), torch.zeros(1), torch.tensor([0])
    wide = torch.complex128
    for index in INDEX_DTYPES:
        limits = torch.iinfo(index)
        for bad in (2, -2, limits.max, limits.min):
            for place in (0, 2):
                source = torch.zeros(3, dtype=index)
                source[place] = bad
                yield IllFormed(f"{bad} {index}", (two, source, one), "`source` must name one")
        one_for_all = torch.tensor([0, 2]).to(index), torch.tensor(1.0)
        yield IllFormed("beyond entries", (two, *one_for_all), "`source` must name one")
    for arguments, text in [
        ((two, torch.tensor([0.0]), one), "`source` must be .*int32 or .*int64"),
        ((two, first[None], one), r"`source` must have 1 dimension\(s\), got 2"),
        ((two[None], first, one), r"`entries` must have 1 dimension\(s\), got 2"),
        ((two, first, one.int()), "`fresh` must have dtype"),
        ((two, first, one[None]), r"`fresh` must have 1 dimension\(s\), got 2"),
        ((two.to(wide), first, torch.zeros((), dtype=wide)), "`entries` .*at most 8 bytes"),
    ]:
        yield IllFormed(text, arguments, text)


# sample

SEEDS = [0, -1, 2**63 - 1]
LEAF = 512  # draws in a leaf of the sampler's tree (csrc/kernels/sample.h): beyond it, it divides


@cache
def to_draw() -> list[Sample]:
    sizes = [
        *((population, count) for population in (0, 1, 2, 7) for count in range(population + 1)),
        *((population, LEAF + extra) for population in (600, 10**4) for extra in (-1, 0, 1)),
        *((2 * LEAF + 1, 2 * LEAF + 1 - rest) for rest in (0, 1, 2)),
        *((10**5, count) for count in (1, 10**3)),
        *((population, 3000) for population in (2**31 + 1, 2**53 + 1, 2**62)),
    ]
    return [Sample(f"{size}, {seed}", (*size, seed)) for size in sizes for seed in SEEDS]


@cache
def many_to_draw() -> list[Sample]:
    sizes = [(10**5, count) for count in (5 * 10**4, 10**5 - 1, 10**5)]
    sizes += [(10**9, 50_000), (60_000, 50_000), (10**12, 300_000)]
    return [
        Sample(f"{size}, {seed}", (*size, seed), work=16 * size[1])
        for size in sizes
        for seed in SEEDS
    ]


def check_draw(population: int, count: int, seed: int, drawn: tuple[Tensor]) -> None:
    (numbers,) = drawn
    assert numbers.shape == (count,), "not as many as asked for"
    assert numbers.dtype == torch.int64
    assert (numbers.diff() > 0).all(), "not sorted and distinct"
    assert count == 0 or (numbers[0] >= 0 and numbers[-1] < population), "outside the population"


def ill_formed_draws() -> list[IllFormed]:
    return [
        IllFormed("too many", (5, 6, 0), "`count` must be between 0 and `population` = 5, got 6"),
        IllFormed("below 0", (5, -1, 0), "`count` must be between 0 and `population` = 5, got -1"),
        IllFormed("a text", (5, 3, "0"), "for argument 'seed'", RuntimeError),  # from torch itself
        IllFormed("nothing", (-1, 0, 0), "`population` must not be negative"),
    ]


def again(sample: Sample, known: str = "right") -> Sample:
    """The same with row pointers: those of the topology, or others of the same number."""
    indices, *shape = sample.arguments
    row_pointers = compress_reference(indices, *shape)
    if known == "those of another":
        row_pointers = row_pointers.flip(0).sort().values // 2
    elif known == "shifted":
        row_pointers = row_pointers + 1
    arguments = (indices, row_pointers, *shape)
    return replace(sample, label=f"{sample.label}, {known}", arguments=arguments)


@cache
def to_compress_again() -> list[Sample]:
    kinds = ["right", "those of another", "shifted"]
    return [again(sample, kind) for sample in to_compress() for kind in kinds]


def ill_formed_again() -> Iterator[IllFormed]:
    """What `compress` refuses is refused where the row pointers are not known either."""
    for each in ill_formed_topologies():
        indices, out_features, in_features = each.arguments
        if isinstance(out_features, int) and 0 <= out_features < 2**32:
            known = torch.full((out_features + 1,), -1)
            arguments = (indices, known, out_features, in_features)
            yield replace(each, arguments=arguments)
    indices = torch.tensor([[0, 1], [1, 0]])
    for known, text in [
        (torch.zeros(2, dtype=torch.int64), r"must have size 3 \(out_features \+ 1\), got 2"),
        (torch.zeros(3, dtype=torch.int32), "must have dtype torch.int64"),
        (torch.zeros(3, 1, dtype=torch.int64), r"must have 1 dimension\(s\), got 2"),
    ]:
        yield IllFormed(text, (indices, known, 2, 2), f"`row_pointers` {text}")
    yield IllFormed("negative", (indices, torch.zeros(3).long(), -1, 2), "`out_features` must not")


TOPOLOGIES = [
    Operator(
        "compress",
        to_compress,
        lambda: to_compress()[5::20],
        lambda: list(ill_formed_topologies()),
        large=large_to_compress,
        split_from=SERIAL_VISITS,
        reference=compress_reference,
        oracle=compress_oracle,
    ),
    Operator(
        "compress_again",
        to_compress_again,
        lambda: to_compress_again()[5::20],
        lambda: list(ill_formed_again()),
        large=lambda: [again(sample) for sample in large_to_compress()],
        reference=compress_again_reference,
        oracle=lambda indices, known, *shape: compress_oracle(indices, *shape),
        arbitrary=frozenset({"row_pointers"}),
    ),
    Operator(
        "transpose",
        to_transpose,
        lambda: to_transpose()[5::20],
        lambda: list(ill_formed_orders()),
        large=large_to_transpose,
        reference=transpose_reference,
        oracle=transpose_oracle,
    ),
    Operator(
        "merge",
        to_merge,
        lambda: to_merge()[:3],
        lambda: list(ill_formed_merges()),
        large=lambda: to_merge(True),
        split_from=PIECE + 1,
        reference=merge_reference,
        oracle=merge_oracle,
    ),
    Operator(
        "to_positions",
        to_number,
        lambda: to_number()[:4],
        lambda: list(ill_formed_positions()),
        large=lambda: to_number(True),
        split_from=PIECE + 1,
        reference=to_positions_reference,
        oracle=to_positions_oracle,
    ),
    Operator(
        "from_positions",
        to_split,
        lambda: to_split()[:4],
        lambda: list(ill_formed_numbers()),
        large=lambda: to_split(True),
        split_from=PIECE + 1,
        reference=from_positions_reference,
        oracle=from_positions_oracle,
    ),
    Operator(
        "empty_positions",
        to_rank,
        lambda: to_rank()[:2],
        lambda: list(ill_formed_ranks()),
        large=lambda: to_rank(True),
        split_from=PIECE + 1,
        reference=empty_positions_reference,
        oracle=empty_positions_oracle,
    ),
    Operator(
        "move",
        to_move,
        lambda: to_move()[8:24:5],
        lambda: list(ill_formed_moves()),
        large=lambda: to_move(True),
        split_from=PIECE + 1,
        reference=move_reference,
        oracle=move_oracle,
        arbitrary=frozenset({"entries", "fresh"}),
    ),
    Operator(
        "sample",
        to_draw,
        lambda: to_draw()[6:40:12],
        ill_formed_draws,
        large=many_to_draw,
        split_from=SERIAL_VISITS,
        check=check_draw,
        portable=True,
    ),
]
