"""The operators that carry a topology over to the next: against plain torch, and hostile input."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from oracles import INDEX_DTYPES, same_bits, spread
from torch import Tensor

from torch_truly_sparse import ops
from torch_truly_sparse.ops.merge import merge_reference
from torch_truly_sparse.ops.move import move_reference
from torch_truly_sparse.ops.positions import (
    empty_positions_reference,
    from_positions_reference,
    to_positions_reference,
)

each_index_dtype = pytest.mark.parametrize("index", INDEX_DTYPES, ids=str)
each_form = pytest.mark.parametrize("form", ["compiled", "reference"])

# out_features, in_features, connections, share dropped, regrown. A piece is 2^15 connections.
CASES = {
    "small": (7, 9, 30, 0.3, 9),
    "none": (7, 9, 0, 0.0, 0),
    "from_nothing": (7, 9, 0, 0.0, 40),
    "to_nothing": (7, 9, 40, 1.0, 0),
    "full": (30, 40, 1200, 0.3, 360),
    "one_piece": (500, 400, 32_768, 0.3, 9_830),
    "a_piece_and_one": (500, 400, 32_769, 0.3, 9_831),
    "three_pieces": (500, 400, 80_000, 0.3, 40_000),
    "few_of_many": (500, 400, 80_000, 0.0, 1),
    "beyond_32_bits": (10**6, 10**7, 70_000, 0.5, 35_000),
    "nearly_62_bits": (2**31 - 1, 2**31 - 2, 3_000, 0.5, 900),
}


def change(case: str, index: torch.dtype) -> tuple[Tensor, Tensor, Tensor, int, int, int]:
    """The arguments of `merge` without the last."""
    out_features, in_features, nnz, share, count = CASES[case]
    before = ops.sample(out_features * in_features, nnz, seed=1)
    dropped = torch.rand(nnz, generator=torch.Generator().manual_seed(2)) < share
    kept = before[~dropped]
    ranks = ops.sample(out_features * in_features - len(kept), count, seed=3)
    regrown = empty_positions_reference(kept, ranks)
    indices = from_positions_reference(before, out_features, in_features, narrow=False).to(index)
    return indices, dropped, regrown, len(kept), out_features, in_features


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES)
@each_index_dtype
def test_compiled_forms_equal_plain_torch(case: str, index: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    indices, dropped, regrown, survivors, *size = change(case, index)
    kept = ops.to_positions(indices, dropped, survivors, size[1])
    assert torch.equal(kept, to_positions_reference(indices, dropped, survivors, size[1]))
    everything = ops.to_positions(indices, None, indices.shape[1], size[1])
    assert torch.equal(everything, to_positions_reference(indices, None, indices.shape[1], size[1]))
    back = ops.from_positions(everything, *size, index)
    assert same_bits(back, from_positions_reference(everything, *size, index == torch.int32))

    ranks = ops.sample(size[0] * size[1] - survivors, len(regrown), seed=4)
    assert torch.equal(ops.empty_positions(kept, ranks), empty_positions_reference(kept, ranks))

    following, source = ops.merge(indices, dropped, regrown, survivors, *size, index)
    wanted = merge_reference(indices, dropped, regrown, survivors, *size, index == torch.int32)
    assert same_bits(following, wanted[0])
    assert same_bits(source, wanted[1])


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.float16, torch.float32, torch.float64, torch.complex64], ids=str
)
@each_index_dtype
def test_move_carries_every_dtype(dtype: torch.dtype, index: torch.dtype) -> None:
    *arguments, _ = *change("three_pieces", index), None
    _, source = ops.merge(*arguments, index)
    entries, fresh = torch.randn(80_000).to(dtype), torch.randn(40_000).to(dtype)
    for new in (fresh, fresh[0]):
        assert torch.equal(ops.move(entries, source, new), move_reference(entries, source, new))
    assert torch.equal(
        ops.move(spread(entries), spread(source), spread(fresh)), ops.move(entries, source, fresh)
    )


def test_move_without_entries_or_fresh_ones() -> None:
    none = torch.empty(0)
    new = torch.tensor([-1, -2])
    assert ops.move(none, new, torch.tensor([5.0, 6.0])).tolist() == [5, 6]
    assert ops.move(torch.tensor([7.0]), torch.tensor([0]), none).tolist() == [7]
    assert ops.move(none, torch.empty(0, dtype=torch.int64), none).tolist() == []


# torch.library


def _calls() -> list[tuple[str, tuple]]:
    indices, dropped, regrown, survivors, *size = change("small", torch.int32)
    kept = to_positions_reference(indices, dropped, survivors, size[1])
    weights = torch.randn(30)
    _, source = merge_reference(indices, dropped, regrown, survivors, *size, True)
    return [
        ("mark_smallest", (weights, 7)),
        ("mark_weakest", (weights.double(), 3, 4)),
        ("to_positions", (indices, dropped, survivors, 9)),
        ("to_positions", (indices.long(), None, 30, 9)),
        ("from_positions", (kept, 7, 9, True)),
        ("from_positions", (kept, 7, 9, False)),
        ("empty_positions", (kept, torch.arange(5))),
        ("keep_largest", (weights, torch.arange(30), 7)),
        ("merge", (indices, dropped, regrown, survivors, *size, True)),
        ("merge", (indices.long(), dropped, regrown, survivors, *size, False)),
        ("move", (weights, source, torch.randn(9))),
        ("move", (weights, source.long(), torch.tensor(2.0))),
    ]


@pytest.mark.parametrize(("name", "arguments"), _calls(), ids=lambda x: x if type(x) is str else "")
def test_opcheck_and_shapes_on_meta(name: str, arguments: tuple) -> None:
    operator = getattr(torch.ops.torch_truly_sparse, name)
    torch.library.opcheck(operator.default, arguments)
    real = operator(*arguments)
    meta = operator(*(a.to("meta") if isinstance(a, Tensor) else a for a in arguments))
    real, meta = ([r] if isinstance(r, Tensor) else r for r in (real, meta))
    for a, b in zip(real, meta, strict=True):
        assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


# What no caller should do: it ends in an error, or in other numbers, never in foreign memory.


WRONG = {
    "merge": [
        ({"dropped": torch.zeros(29, dtype=torch.bool)}, "`dropped` must have size 30"),
        ({"dropped": torch.zeros(30)}, "`dropped` must have dtype torch.bool"),
        ({"survivors": 5}, "`survivors` must have size"),
        ({"survivors": -(2**60)}, "`survivors` must have size"),
        ({"regrown": torch.tensor([3, 3])}, "increasing and distinct"),
        ({"regrown": torch.tensor([-1])}, r"\[0, out_features \* in_features\)"),
        ({"regrown": torch.tensor([63])}, r"\[0, out_features \* in_features\)"),
        ({"regrown": torch.tensor([1]).int()}, r"`regrown` must have dtype torch\.int64"),
        ({"out_features": -7}, "`out_features` must not be negative"),
        ({"out_features": 2**62}, r"below 2\*\*63"),
        ({"in_features": 0}, r"`indices` must lie in \[0, out_features\)"),
        ({"out_features": 2**31, "in_features": 1}, "`narrow` must be False"),
    ],
}


@pytest.mark.parametrize(("changes", "text"), WRONG["merge"])
def test_merge_names_what_does_not_fit(changes: dict, text: str) -> None:
    names = ("indices", "dropped", "regrown", "survivors", "out_features", "in_features")
    arguments = dict(zip(names, change("small", torch.int32), strict=True))
    if "out_features" in changes or "in_features" in changes:
        arguments["regrown"] = torch.empty(0, dtype=torch.int64)
    with pytest.raises(ValueError, match=text):
        ops.merge(**{**arguments, **changes}, dtype=torch.int32)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (partial(ops.to_positions, torch.zeros(3, 2).int(), None, 2, 5), "`indices` must have siz"),
        (partial(ops.to_positions, torch.zeros(2, 2), None, 2, 5), "`indices` must be int32 or"),
        (partial(ops.to_positions, torch.zeros(2, 2).int(), None, 3, 5), "`count` must have size"),
        (partial(ops.from_positions, torch.tensor([6]), 2, 3, torch.int32), r"in \[0, .* \[0, 6"),
        (partial(ops.from_positions, torch.tensor([-1]), 2, 3, torch.int64), r"in \[0, .* \[0, 6"),
        (partial(ops.from_positions, torch.tensor([0]), 0, 3, torch.int64), r"in \[0, .* \[0, 0"),
        (partial(ops.from_positions, torch.tensor([0]), 2**31, 1, torch.int32), "`narrow`"),
        (partial(ops.empty_positions, torch.tensor([0]), torch.zeros(1)), "`ranks` must have dt"),
        (partial(ops.move, torch.zeros(2), torch.tensor([2]), torch.zeros(1)), "`source` must"),
        (partial(ops.move, torch.zeros(2), torch.tensor([-2]), torch.zeros(1)), "`source` must"),
        (partial(ops.move, torch.zeros(2), torch.tensor([0.0]), torch.zeros(1)), "`source` must"),
        (partial(ops.move, torch.zeros(2), torch.tensor([0]), torch.zeros(1).int()), "`fresh` mu"),
        (
            partial(ops.move, torch.zeros(2, dtype=torch.complex128), torch.tensor([0]),
                    torch.zeros((), dtype=torch.complex128)),
            "at most 8 bytes",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


@pytest.mark.parametrize("seed", range(30))
@each_index_dtype
def test_numbers_of_any_content_raise_or_give_a_topology(seed: int, index: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    indices, dropped, regrown, survivors, *size = change("three_pieces", index)
    at = torch.randint(80_000, (3,), generator=generator)
    info = torch.iinfo(index)
    indices[seed % 2, at] = torch.tensor([info.max, info.min, 0])[seed % 3].to(index)
    # A byte that is neither 0 nor 1 counts as set, everywhere alike.
    dropped.view(torch.uint8)[at] = 255
    survivors = len(dropped) - int((dropped.view(torch.uint8) != 0).sum())
    ops.to_positions(indices, dropped, survivors, size[1])
    try:
        following, _ = ops.merge(indices, dropped, regrown, survivors, *size, index)
    except ValueError:
        return
    ops.compress(following, *size)  # raises unless sorted, unique and in range


def test_ranks_and_occupied_positions_of_any_content_give_numbers() -> None:
    wild = torch.randint(-(2**63), 2**63 - 1, (70_000,))
    assert ops.empty_positions(wild, wild.flip(0)).shape == wild.shape
