"""Exact selection: the operators mark what a stable sort would, to the last tie."""

from __future__ import annotations

from math import isnan

import pytest
import torch
from oracles import VALUE_DTYPES, same_bits, spread
from torch import Tensor

from torch_truly_sparse import ops
from torch_truly_sparse.ops.select import (
    keep_largest_reference,
    mark_smallest_reference,
    mark_weakest_reference,
)

NAN, INF = float("nan"), float("inf")
# A piece is 2^15 numbers; from 2^18 on, keys are looked at 16 bits at a time instead of 8.
LENGTHS = [0, 1, 2, 255, 32_768, 32_769, 262_143, 262_144, 300_001]
SPECIAL = [0.0, -0.0, NAN, -NAN, INF, -INF, 1e-45, -1e-45, 1.0, -1.0, 3e38, -3e38]


def numbers(kind: str, length: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    normal = torch.randn(length, generator=generator, dtype=torch.float64)
    if kind == "special":
        special = torch.tensor(SPECIAL, dtype=torch.float64)
        return special[(normal * 100).long() % len(SPECIAL)].to(dtype)
    return {
        "normal": normal,
        "ties": (3 * normal).round(),
        "equal": torch.full_like(normal, -0.25),
        "tiny_steps": 1 + 1e-7 * normal,  # keys that differ in their last bits only
        "wide": normal * torch.logspace(-30, 30, max(length, 1), dtype=torch.float64)[:length],
    }[kind].to(dtype)


KINDS = ["normal", "ties", "equal", "tiny_steps", "wide", "special"]


def oracle(scores: list[float], count: int) -> set[int]:
    """The smallest by Python's stable sort; NaN last, of either sign."""
    return set(
        sorted(range(len(scores)), key=lambda i: (scores[i] != scores[i], scores[i]))[:count]
    )


@pytest.mark.parametrize("form", [ops.mark_smallest, mark_smallest_reference])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [*VALUE_DTYPES, torch.float16, torch.bfloat16, torch.int32])
def test_the_smallest_are_those_of_a_stable_sort(form, kind: str, dtype: torch.dtype) -> None:
    x = numbers(kind, 57, torch.float64).nan_to_num(0, 99, -99) if dtype == torch.int32 else None
    scores = numbers(kind, 57, dtype) if x is None else x.clamp(-99, 99).int()
    for count in (0, 1, 20, 56, 57):
        marked = form(scores, count)
        assert set(marked.nonzero().flatten().tolist()) == oracle(scores.tolist(), count)


def weakest(weights: list[float], positive: int, negative: int) -> set[int]:
    below = [i for i, w in enumerate(weights) if w < 0]
    others = [i for i, w in enumerate(weights) if not w < 0]
    key = lambda i: (weights[i] != weights[i], abs(weights[i]))  # noqa: E731
    return {*sorted(others, key=key)[:positive], *sorted(below, key=key)[:negative]}


@pytest.mark.parametrize("form", [ops.mark_weakest, mark_weakest_reference])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", VALUE_DTYPES)
def test_the_weakest_are_those_of_a_stable_sort_of_each_sign(form, kind, dtype) -> None:
    weights = numbers(kind, 57, dtype)
    below = int((weights < 0).sum())
    for share in (0, 0.1, 0.5, 1):
        for other in (0, share, 1):
            positive, negative = round(share * (57 - below)), round(other * below)
            marked = form(weights, positive, negative)
            expected = weakest(weights.tolist(), positive, negative)
            assert set(marked.nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("form", [ops.keep_largest, keep_largest_reference])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", VALUE_DTYPES)
def test_the_largest_are_those_of_a_stable_sort(form, kind: str, dtype: torch.dtype) -> None:
    x = numbers(kind, 57, dtype)
    places = torch.arange(57).mul_(3).sub_(99)
    scores = x.tolist()
    down = sorted(range(57), key=lambda i: (not isnan(scores[i]), isnan(scores[i]) or -scores[i]))
    for count in (0, 1, 20, 56, 57):
        kept, positions = form(x, places, count)
        expected = sorted(down[:count])
        assert positions.tolist() == places[expected].tolist()
        assert same_bits(kept, x[expected])


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", VALUE_DTYPES)
def test_pieces_and_threads_change_nothing(length: int, kind: str, dtype: torch.dtype) -> None:
    x = numbers(kind, length, dtype)
    below = int((x < 0).sum())
    count, sides = length // 3, ((length - below) // 3, below // 2)
    smallest, weakest = mark_smallest_reference(x, count), mark_weakest_reference(x, *sides)
    positions = torch.arange(length)
    largest = keep_largest_reference(x, positions, count)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert torch.equal(ops.mark_smallest(x, count), smallest)
        assert torch.equal(ops.mark_weakest(x, *sides), weakest)
        kept = ops.keep_largest(x, positions, count)
        assert all(map(same_bits, kept, largest))


def test_any_memory_layout_is_read_and_nothing_is_written() -> None:
    scores = torch.randn(99)
    gaps = spread(scores)
    assert torch.equal(ops.mark_smallest(gaps, 30), ops.mark_smallest(scores, 30))
    negated = scores.mul(1j).conj().imag  # lazily negated
    assert torch.equal(ops.mark_smallest(negated, 30), ops.mark_smallest(negated.clone(), 30))
    assert torch.equal(gaps, scores)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: ops.mark_smallest(x, 11), "`count` must be between 0 and 10.* got 11"),
        (lambda x: ops.mark_smallest(x, -1), "`count` must be between 0 and 10.* got -1"),
        (lambda x: ops.mark_smallest(x[:0], 1), "`count` must be between 0 and 0.* got 1"),
        (lambda x: ops.mark_weakest(x, 6, 5), "`positive` must be between 0 and 5.* got 6"),
        (lambda x: ops.mark_weakest(x, 5, 6), "`negative` must be between 0 and 5.* got 6"),
        (lambda x: ops.mark_weakest(x, -(2**62), 5), "`positive` must be between 0 and 5"),
        (lambda x: ops.mark_smallest(x[None], 1), r"`scores` must have 1 dimension\(s\), got 2"),
        (lambda x: ops.mark_weakest(x.int(), 1, 1), "`weights` must be float32 or float64"),
        (lambda x: ops.keep_largest(x, x.long(), 11), "`count` must be between 0 and 10.* got 11"),
        (lambda x: ops.keep_largest(x, x.long(), -1), "`count` must be between 0 and 10.* got -1"),
        (lambda x: ops.keep_largest(x, x.long()[1:], 1), "`positions` must have size 10"),
        (lambda x: ops.keep_largest(x, x, 1), "`positions` must have dtype torch.int64"),
        (lambda x: ops.keep_largest(x.int(), x.long(), 1), "`numbers` must be float32 or float64"),
    ],
)
def test_what_cannot_be_marked_is_refused(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(torch.tensor([1.0, -1.0] * 5))
