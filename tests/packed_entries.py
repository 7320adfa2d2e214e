"""The product of a packed matrix, for the table of operators."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from operator_entry import SERIAL_VISITS, IllFormed, Operator, Sample
from product_entries import BATCHES, MATRICES, damaged, label, large_matrix, matrix, normal, rows_of
from torch import Tensor

from torch_truly_sparse.ops.spmm_packed import spmm_packed_reference

INPUTS = [torch.float32, torch.bfloat16, torch.float16]
STORED = [torch.float32, torch.bfloat16, torch.int8]
WIDE = 200_000  # columns, of which 16 bits tell gaps only
ARGUMENTS = ("x", "crow", "codes", "values", "scales", "bias")
SKIP = 0xFFFF


def stored(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers of a dtype; int8 ones of both signs."""
    return (values * 50).clamp(-127, 127).to(dtype) if dtype == torch.int8 else values.to(dtype)


def operands(
    crow: Tensor,
    codes: Tensor,
    values: Tensor,
    in_features: int,
    batch: int,
    kinds: tuple[Any, Any],
) -> dict[str, Any]:
    x, v = kinds
    rows = len(crow) - 1
    return {
        "x": normal(batch, in_features, dtype=x),
        "crow": crow,
        "codes": codes.to(torch.int16),
        "values": stored(values, v),
        "scales": normal(rows, dtype=torch.float32, seed=3).abs() if v == torch.int8 else None,
        "bias": normal(rows, dtype=torch.float32, seed=2) if batch % 3 else None,
    }


def call(given: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(given[name] for name in ARGUMENTS)


@cache
def gaps(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Row pointers, codes and values of a wide matrix, entry by entry."""
    generator = torch.Generator().manual_seed(seed)
    crow, codes = [0], []
    for row in range(rows):
        last = 0
        wanted = [] if row % 3 == 2 else torch.randint(WIDE, (row % 7 + 1,), generator=generator)
        # The first and the last column, neighbours, and distances around a skip.
        edges = [0, 1, 65534, 65535, 65536, 131070, 196605, WIDE - 1] if row % 5 == 0 else []
        for column in sorted({*map(int, wanted), *edges}):
            distance = column - last
            while distance >= SKIP:
                codes.append(SKIP)
                distance -= SKIP
            codes.append(distance)
            last = column
        crow.append(len(codes))
    values = torch.randn(len(codes), generator=generator)
    return torch.tensor(crow), torch.tensor(codes), values


def samples() -> list[Sample]:
    found = []
    for i, (name, _) in enumerate(MATRICES.items()):
        for j, batch in enumerate(BATCHES):
            w = matrix(name, torch.float32, torch.int64)
            for k, kinds in enumerate((x, v) for x in INPUTS for v in STORED):
                if name == "17x33-typical" or k == (i + j) % 9:
                    given = operands(w["crow"], w["col"], w["values"], w["size"][1], batch, kinds)
                    found.append(Sample(label(name, batch, *kinds), call(given)))
    for i, batch in enumerate((0, 1, 2, 3, 8, 17)):
        kinds = INPUTS[i % 3], STORED[(i + 1) % 3]
        given = operands(*gaps(11, i), WIDE, batch, kinds)
        found.append(Sample(label("gaps", batch, *kinds), call(given)))
    return found


def few() -> list[Sample]:
    w = matrix("5x4-typical", torch.float32, torch.int64)
    kinds = [(torch.float32, torch.int8), (torch.bfloat16, torch.bfloat16)]
    return [
        Sample(
            label(batch, *kind), call(operands(w["crow"], w["col"], w["values"], 4, batch, kind))
        )
        for kind, batch in zip(kinds, (3, 40), strict=True)
    ]


def large() -> list[Sample]:
    found = []
    for i, (rows, columns, batch) in enumerate(
        [(700, 900, 1), (700, 900, 2), (300, 400, 700), (3000, 2500, 33), (4000, 60_000, 1)]
    ):
        w = large_matrix(rows, columns, torch.float32, torch.int64)
        kinds = INPUTS[i % 3], STORED[i % 3]
        given = operands(w["crow"], w["col"], w["values"], columns, batch, kinds)
        visits = (len(w["col"]) + rows + columns) * (-(-batch // 32))
        small = rows * columns <= 10**6 and rows * columns * batch <= 10**8
        by_reference = len(w["col"]) * batch <= 10**6
        text = label(rows, columns, batch, *kinds)
        found.append(Sample(text, call(given), visits, small, by_reference))
    rows = 5000
    given = operands(*gaps(rows), WIDE, 1, (torch.float32, torch.int8))
    found.append(Sample("gaps, split", call(given), len(given["codes"]) + rows + WIDE, False))
    return found


def dense(crow: Tensor, codes: Tensor, values: Tensor, in_features: int) -> Tensor:
    """The matrix in float64, entry by entry where the codes are gaps."""
    w = torch.zeros(len(crow) - 1, in_features, dtype=torch.float64)
    unsigned = codes.long() % 2**16
    if in_features <= 2**16:
        w[rows_of(crow), unsigned] = values.double()
        return w
    for row in range(len(w)):
        column = 0
        for k in range(int(crow[row]), int(crow[row + 1])):
            column += int(unsigned[k])
            if unsigned[k] != SKIP:
                w[row, column] = values[k].double()
    return w


def oracle(
    x: Tensor,
    crow: Tensor,
    codes: Tensor,
    values: Tensor,
    scales: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    w = dense(crow, codes, values, x.shape[1])
    if scales is not None:
        w = w * scales.double()[:, None]
    y = x.double() @ w.t()
    return y if bias is None else y + bias.double()


def ill_formed() -> list[IllFormed]:
    return [*misfits(), *codes_outside(), *pointers_outside()]


def misfits() -> Iterator[IllFormed]:
    w = matrix("5x4-typical", torch.float32, torch.int64)
    given = operands(w["crow"], w["col"], w["values"], 4, 33, (torch.float32, torch.int8))
    given["bias"] = torch.ones(5)
    changes: list[tuple[str, Any, str]] = [
        ("x", given["x"][0], r"`input` must have 2 dimension\(s\), got 1"),
        ("x", given["x"].double(), "`input` must be float32, bfloat16 or float16"),
        ("x", given["x"].int(), "`input` must be float32"),
        ("crow", given["crow"].int(), "`crow_indices` must have dtype"),
        ("crow", given["crow"][:0], "`crow_indices` must have one entry more"),
        ("codes", given["codes"].int(), "`codes` must have dtype torch.int16"),
        ("codes", given["codes"][None], "`codes` must have 1 dimension"),
        ("codes", given["codes"][1:], "`values` must have size"),
        ("values", given["values"].double(), "`values` must be float32, bfloat16 or int8"),
        ("values", given["values"].half(), "`values` must be float32, bfloat16 or int8"),
        ("values", given["values"][1:], "`values` must have size"),
        ("scales", given["scales"][1:], r"`scales` must have size 5 \(out_features\), got 4"),
        ("scales", given["scales"].double(), "`scales` must have dtype"),
        ("bias", given["bias"][1:], r"`bias` must have size 5 \(out_features\), got 4"),
        ("bias", given["bias"].double(), "`bias` must have dtype"),
    ]
    for name, wrong, text in changes:
        yield IllFormed(label(name, text), call({**given, name: wrong}), text)


def codes_outside() -> Iterator[IllFormed]:
    w = matrix("40x31-uneven", torch.float32, torch.int64)
    for batch in (1, 2, 8, 40):
        given = operands(w["crow"], w["col"], w["values"], 31, batch, (torch.float32, torch.int8))
        for k in (0, len(w["col"]) // 2, len(w["col"]) - 1):
            for bad in (31, -1, 2**15 - 1):
                wrong = {**given, "codes": damaged(given["codes"], k, bad)}
                text = rf"`codes\[{k}\]` leads to column {bad % 2**16}, outside"
                yield IllFormed(label(batch, k, bad), call(wrong), text)
        wide = operands(*gaps(11), WIDE, batch, (torch.float32, torch.bfloat16))
        wrong = {**wide, "codes": damaged(wide["codes"], len(wide["codes"]) - 1, 60_000 - 2**16)}
        wrong["codes"][:] = 60_000 - 2**16
        yield IllFormed(label("gaps", batch), call(wrong), "leads to column 240000, outside")
    none = {**given, "x": torch.ones(2, 0)}
    yield IllFormed("no columns", call(none), "leads to column")


def pointers_outside() -> Iterator[IllFormed]:
    w = matrix("40x31-uneven", torch.float32, torch.int64)
    for batch in (1, 8, 40):
        given = operands(w["crow"], w["col"], w["values"], 31, batch, (torch.float32, torch.int8))
        for row in (0, 20, 40):
            for bad in (-1, 10**15, -(2**62)):
                wrong = {**given, "crow": damaged(given["crow"], row, bad)}
                yield IllFormed(label(batch, row, bad), call(wrong), "`crow_indices` must rise")


PACKED = [
    Operator(
        "spmm_packed",
        samples,
        few,
        ill_formed,
        large=large,
        split_from=SERIAL_VISITS,
        reference=spmm_packed_reference,
        oracle=oracle,
        terms=lambda x, *_: (x.shape[1] + 2,),
        arbitrary=frozenset({"input", "values", "scales", "bias"}),
    )
]
