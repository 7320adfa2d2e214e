"""The operators that select numbers, for the table of operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import torch
from operator_entry import PIECE, IllFormed, Operator, Sample
from oracles import VALUE_DTYPES
from torch import Tensor

from torch_truly_sparse.ops.empty_above import empty_above_reference
from torch_truly_sparse.ops.select import (
    keep_largest_reference,
    mark_smallest_reference,
    mark_weakest_reference,
)

NAN, INF = float("nan"), float("inf")
KINDS = ["normal", "ties", "equal", "tiny steps", "wide", "special"]
SPECIAL = [0.0, -0.0, NAN, -NAN, INF, -INF, 1e-45, -1e-45, 1.0, -1.0, 3e38, -3e38]
SMALL = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 57, 63, 64, 65, 255]
# From 2^18 on, keys are looked at 16 bits at a time instead of 8.
LARGE = [PIECE + 1, 262_143, 262_144, 300_001]


@cache
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
        "tiny steps": 1 + 1e-7 * normal,  # keys that differ in their last bits only
        "wide": normal * torch.logspace(-30, 30, max(length, 1), dtype=torch.float64)[:length],
    }[kind].to(dtype)


def counts(length: int) -> list[int]:
    return sorted({0, min(1, length), length // 3, max(length - 1, 0), length})


def sides(x: Tensor, length: int) -> list[tuple[int, int]]:
    """How many to mark of those not below 0, and of those below 0."""
    below = int((x < 0).sum())
    shares = [(0, 0), (0, 1), (1, 0), (1, 1), (0.1, 0.1), (0.1, 1), (0.5, 0.5), (0.5, 0)]
    return sorted({(round(a * (length - below)), round(b * below)) for a, b in shares})


def places(length: int) -> Tensor:
    return torch.arange(length).mul_(3).sub_(99)


def selections(operator: str, kind: str, length: int, dtype: torch.dtype) -> Iterator[Sample]:
    x = numbers(kind, length, dtype)
    work = length if length > PIECE else 0
    how_many: list[Any] = counts(length)
    if work:
        how_many = [length // 3]
    if operator == "mark_weakest":
        how_many = sides(x, length)[2:3] if work else sides(x, length)
    for wanted in how_many:
        rest = wanted if isinstance(wanted, tuple) else (wanted,)
        given = (x, places(length), *rest) if operator == "keep_largest" else (x, *rest)
        yield Sample(f"{length} {kind} {dtype}, {wanted}", given, work, by_oracle=not work)


def of_lengths(operator: str, lengths: list[int], kinds: list[str]) -> list[Sample]:
    return [
        sample
        for length in lengths
        for kind in kinds
        for dtype in VALUE_DTYPES
        for sample in selections(operator, kind, length, dtype)
    ]


@cache
def samples(operator: str) -> list[Sample]:
    return of_lengths(operator, SMALL, KINDS)


@cache
def large(operator: str) -> list[Sample]:
    """Each length with each dtype and with half of the kinds."""
    return [
        sample
        for i, length in enumerate(LARGE)
        for sample in of_lengths(operator, [length], KINDS[i % 2 :: 2])
    ]


def few(operator: str) -> list[Sample]:
    return of_lengths(operator, [9], ["ties"])[1::3] + of_lengths(operator, [0], ["normal"])[:1]


# Oracles: Python's stable sort, NaN last of either sign.


def marks(length: int, chosen: list[int]) -> Tensor:
    marked = torch.zeros(length, dtype=torch.bool)
    marked[torch.tensor(chosen, dtype=torch.int64)] = True
    return marked


def mark_smallest_oracle(scores: Tensor, count: int) -> Tensor:
    x = scores.tolist()
    return marks(len(x), sorted(range(len(x)), key=lambda i: (x[i] != x[i], x[i]))[:count])


def mark_weakest_oracle(weights: Tensor, positive: int, negative: int) -> Tensor:
    x = weights.tolist()
    key: Callable[[int], Any] = lambda i: (x[i] != x[i], abs(x[i]))  # noqa: E731
    below = sorted((i for i in range(len(x)) if x[i] < 0), key=key)
    others = sorted((i for i in range(len(x)) if not x[i] < 0), key=key)
    return marks(len(x), [*others[:positive], *below[:negative]])


def keep_largest_oracle(numbers: Tensor, positions: Tensor, count: int) -> tuple[Tensor, Tensor]:
    x = numbers.tolist()
    down = sorted(range(len(x)), key=lambda i: (0, 0.0) if x[i] != x[i] else (1, -x[i]))
    kept = torch.tensor(sorted(down[:count]), dtype=torch.int64)
    return numbers[kept], positions[kept]


# What must be refused


def ill_formed(operator: str) -> Iterator[IllFormed]:
    x = torch.tensor([1.0, -1.0] * 5)
    name = {"mark_smallest": "scores", "mark_weakest": "weights", "keep_largest": "numbers"}
    # From the numbers to the arguments.
    fitting: dict[str, Callable[..., tuple[Any, ...]]] = {
        "mark_smallest": lambda y, count=1: (y, count),
        "mark_weakest": lambda y, positive=1, negative=1: (y, positive, negative),
        "keep_largest": lambda y, count=1, at=None: (y, x.long() if at is None else at, count),
    }
    build = fitting[operator]
    for wrong, text in [
        (x[None], r"must have 1 dimension\(s\), got 2"),
        (x[0], r"must have 1 dimension\(s\), got 0"),
        (x.int(), "must be .*float32 or .*float64"),
        (x.bfloat16(), "must be .*float32 or .*float64"),
    ]:
        yield IllFormed(text, build(wrong), f"`{name[operator]}` {text}")
    if operator == "mark_weakest":
        for most in (6, 2**62, -1, -(2**62)):
            for side in ("positive", "negative"):
                text = f"`{side}` must be between 0 and 5.* got {most}"
                yield IllFormed(text, build(x, **{side: most}), text)
        return
    for count in (11, -1, 2**62, -(2**62)):
        text = f"`count` must be between 0 and 10.* got {count}"
        yield IllFormed(text, build(x, count), text)
    if operator == "keep_largest":
        for wrong, text in [
            (x.long()[1:], "must have size 10"),
            (x, "must have dtype"),
            (x.int(), "must have dtype"),
            (x.long()[None], r"must have 1 dimension\(s\), got 2"),
        ]:
            yield IllFormed(text, build(x, at=wrong), f"`positions` {text}")
    else:
        yield IllFormed("none at all", build(x[:0], 1), "`count` must be between 0 and 0.* got 1")


# empty_above: a word of its set holds 64 entries, a piece of it 1024.
LENGTHS = [0, 1, 7, 63, 64, 65, 130, 1023, 1024, 1025, 3000]
THRESHOLDS = [-INF, -1.0, -0.0, 0.0, 0.5, 1.0, 2.5, INF, NAN]
FAR = 2**61 + 5  # positions of the largest layers


@cache
def block(length: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers with ties, zeros of both signs, infinities and NaN among them."""
    generator = torch.Generator().manual_seed(length)
    found = torch.randn(length, generator=generator, dtype=dtype)
    for every, number in ((3, 0.5), (5, -0.5), (7, NAN), (11, INF), (13, -INF), (17, -0.0)):
        found[every::every] = number
    return found


@cache
def taken(length: int, share: float) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return (torch.rand(length, generator=generator) < share).nonzero().squeeze(1)


def blocks(lengths: list[int], by_oracle: bool = True) -> list[Sample]:
    return [
        Sample(
            f"{length} {dtype}, {share} taken, > {threshold}",
            (block(length, dtype), start, taken(length, share) + start, threshold),
            by_oracle=by_oracle,
        )
        for length in lengths
        for dtype in VALUE_DTYPES
        for share, start in ((0.0, 1000), (0.05, FAR), (0.2, 0), (1.0, FAR))
        for threshold in THRESHOLDS
    ]


@cache
def small_blocks() -> list[Sample]:
    return blocks(LENGTHS)


@cache
def large_blocks() -> list[Sample]:
    return blocks([70_001], by_oracle=False)


def empty_above_oracle(
    gradients: Tensor, start: int, occupied: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    held = set(occupied.tolist())
    found = [
        (start + i, 0.0 if number != number else abs(number))
        for i, number in enumerate(gradients.tolist())
        if start + i not in held and (threshold < 0 or abs(number) > threshold)
    ]
    positions = torch.tensor([p for p, _ in found], dtype=torch.int64)
    return positions, torch.tensor([m for _, m in found], dtype=gradients.dtype)


# Positions that do not increase, or lie outside a block of 20 that begins at 10.
ILL_FORMED_OCCUPIED = [
    [-1],
    [9],
    [30],
    [12, 11],
    [10, 29, 10],
    [15, 2**63 - 1],
    [-(2**63), 12],
    [2**62, -(2**62)],
]


def ill_formed_blocks() -> Iterator[IllFormed]:
    for occupied in ILL_FORMED_OCCUPIED:
        yield IllFormed(
            str(occupied),
            (torch.randn(20), 10, torch.tensor(occupied), 0.0),
            r"`occupied` must increase and lie in .* \[10, 30\)",
        )
    fitting: dict[str, Any] = {
        "gradients": torch.randn(3),
        "start": 0,
        "occupied": torch.tensor([1]),
        "threshold": 0.0,
    }
    for name, wrong, text in [
        ("gradients", torch.randn(2, 3), r"must have 1 dimension\(s\), got 2"),
        ("gradients", torch.arange(3), "must be .*float32 or .*float64"),
        ("gradients", torch.randn(3).bfloat16(), "must be .*float32 or .*float64"),
        ("start", -1, r"must lie in \[0, 2\*\*63 - n\), got -1"),
        ("start", 2**63 - 1, r"must lie in \[0, 2\*\*63 - n\)"),
        ("occupied", torch.tensor([1], dtype=torch.int32), "must have dtype"),
        ("occupied", torch.tensor([[1]]), r"must have 1 dimension\(s\), got 2"),
    ]:
        yield IllFormed(text, tuple({**fitting, name: wrong}.values()), f"`{name}` {text}")


def selection(
    name: str, reference: Callable[..., Any], oracle: Callable[..., Any], *arbitrary: str
) -> Operator:
    return Operator(
        name,
        partial(samples, name),
        partial(few, name),
        lambda: list(ill_formed(name)),
        large=partial(large, name),
        split_from=PIECE + 1,
        reference=reference,
        oracle=oracle,
        arbitrary=frozenset(arbitrary),
    )


SELECTIONS = [
    selection("mark_smallest", mark_smallest_reference, mark_smallest_oracle, "scores"),
    selection("mark_weakest", mark_weakest_reference, mark_weakest_oracle),
    selection("keep_largest", keep_largest_reference, keep_largest_oracle, "numbers", "positions"),
    Operator(
        "empty_above",
        small_blocks,
        lambda: small_blocks()[40::200],
        lambda: list(ill_formed_blocks()),
        large=large_blocks,
        reference=empty_above_reference,
        oracle=empty_above_oracle,
        arbitrary=frozenset({"gradients"}),
        data_dependent=True,
    ),
]
