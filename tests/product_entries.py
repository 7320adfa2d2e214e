"""The products and their gradients, for the table of operators."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from operator_entry import SERIAL_VISITS, IllFormed, Operator, Sample
from oracles import INDEX_DTYPES, MASKS, Matrix
from torch import Tensor

from torch_truly_sparse.ops.column_sum import column_sum_reference
from torch_truly_sparse.ops.sddmm import sddmm_reference
from torch_truly_sparse.ops.spmm import spmm_reference
from torch_truly_sparse.ops.spmm_backward import spmm_backward_reference
from torch_truly_sparse.ops.spmm_transposed import spmm_transposed_reference

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Around every tile width (1, 2, 4, 8, 16, 32), and more than two of the widest.
BATCHES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 100]
COMBINATIONS = [(dtype, index) for index in INDEX_DTYPES for dtype in DTYPES]
SHAPES = [(1, 1), (3, 5), (8, 16), (15, 17), (16, 16), (33, 65), (40, 31), (64, 7), (70, 130)]
ORDER = ("ccol", "row", "permutation")


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def uneven(out_features: int, in_features: int, density: float = 0.3) -> Tensor:
    """A random mask with empty rows, empty columns and one row that is full up to those."""
    generator = torch.Generator().manual_seed(out_features * in_features)
    mask = torch.rand(out_features, in_features, generator=generator) < density
    mask[out_features // 2] = True
    mask[:: max(out_features // 3, 1)] = False
    mask[:, :: max(in_features // 3, 1)] = False
    return mask


MATRICES = {**MASKS, **{f"{o}x{i}-uneven": uneven(o, i) for o, i in SHAPES}}
# Where every dtype meets every index dtype and every batch.
IN_FULL = ("17x33-typical", "70x130-uneven")


@cache
def matrix(name: str, dtype: torch.dtype, index: torch.dtype) -> dict[str, Any]:
    """A sparse matrix by the names that the forms below use, made without the operators."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = Matrix.of_mask(MATRICES[name], sum_dtype(dtype), index)
    parts = {part: getattr(made, part) for part in ("crow", "col", "values", *ORDER)}
    return {**parts, "size": tuple(made.dense.shape)}


def cases() -> Iterator[tuple[str, torch.dtype, torch.dtype, int]]:
    """Every mask with every batch; dtypes in turn, so that every pair meets every batch."""
    for i, name in enumerate(MATRICES):
        for j, batch in enumerate(BATCHES):
            for k, (dtype, index) in enumerate(COMBINATIONS):
                if name in IN_FULL or k == (i + j) % len(COMBINATIONS):
                    yield name, dtype, index, batch


def label(*parts: object) -> str:
    return ", ".join(str(part).removeprefix("torch.") for part in parts)


@cache
def normal(*size: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Normal numbers; the same tensor each time, so that the table takes little memory."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def operands(w: dict[str, Any], batch: int, dtype: torch.dtype) -> dict[str, Any]:
    """What the products take, by the names that the forms below use."""
    out_features, in_features = w["size"]
    return {
        **w,
        "x": normal(batch, in_features, dtype=dtype),
        "dy": normal(batch, out_features, dtype=dtype, seed=1),
        "bias": normal(out_features, dtype=sum_dtype(dtype), seed=2),
        "in_features": in_features,
        "yes": True,
        "no": False,
        "none": None,
        "zero": 0.0,
        **updates(len(w["values"]), sum_dtype(dtype)),
    }


def updates(nnz: int, dtype: torch.dtype) -> dict[str, Any]:
    """State and settings of optimizers.

    Weights go up the gradient (a negative learning rate): each new weight is then a sum in which
    nothing is subtracted, whose error can be bounded.
    """
    return {
        "buffer": normal(nnz, dtype=dtype, seed=3),
        "mean": normal(nnz, dtype=dtype, seed=4),
        "square": normal(nnz, dtype=dtype, seed=5).square() + 1,
        "largest": normal(nnz, dtype=dtype, seed=6).square() + 1,
        "rate": -0.1,
        "momentum": 0.9,
        "beta2": 0.999,
        "share": 0.25,
        "decay": 0.01,
        "limit": 1e6,
        "third": 3.0,
    }


FULL_NAMES = {
    "x": "input",
    "dy": "grad_output",
    "crow": "crow_indices",
    "col": "col_indices",
    "ccol": "ccol_indices",
    "row": "row_indices",
    "buffer": "momentum_buffer",
    "mean": "exp_avg",
    "square": "exp_avg_sq",
    "largest": "max_exp_avg_sq",
    "limit": "clip_value",
    "third": "step",
}

# Each form of a call: the operands that stand for the arguments of the schema, in order.
MATRIX = ("crow", "col", "values")
SGD, MOVING = ("dy", "x", *MATRIX), ("rate", "momentum")
ADAM, BETAS = (*SGD, "mean", "square"), ("rate", "momentum", "beta2")
FORMS: dict[str, dict[str, tuple[str, ...]]] = {
    "spmm": {"": ("x", *MATRIX), "bias": ("x", *MATRIX, "bias")},
    "spmm_transposed": {
        "": ("dy", *MATRIX, "in_features"),
        "ordered": ("dy", *MATRIX, "in_features", *ORDER),
    },
    "sddmm": {"": ("dy", "x", "crow", "col")},
    "spmm_backward": {
        "all": ("dy", "x", *MATRIX, "yes", "yes"),
        "all, ordered": ("dy", "x", *MATRIX, "yes", "yes", *ORDER),
        "for bias": ("dy", "x", *MATRIX, "no", "yes"),
        "for input, ordered": ("dy", "x", *MATRIX, "yes", "no", *ORDER),
        "for weights": ("dy", "x", *MATRIX, "no", "no"),
    },
    "spmm_backward_sgd": {
        "all": (*SGD, "buffer", "yes", "yes", *MOVING, "share", "decay", "no", "no", "limit", "no"),
        "all, ordered": (
            *(*SGD, "buffer", "yes", "yes", *MOVING, "share", "decay", "no", "no", "limit", "no"),
            *ORDER,
        ),
        "no momentum": (
            *(*SGD, "none", "no", "yes", "rate", "zero", "zero", "decay", "no", "no", "none", "no"),
        ),
        "Nesterov, ordered": (
            *(*SGD, "buffer", "yes", "no", *MOVING, "zero", "decay", "yes", "no", "limit", "no"),
            *ORDER,
        ),
        "first": (*SGD, "buffer", "no", "no", *MOVING, "share", "decay", "no", "no", "none", "yes"),
    },
    "spmm_backward_adamw": {
        "all": (*ADAM, "none", "yes", "yes", *BETAS, "decay", "decay", "no", "limit", "third"),
        "all, ordered": (
            *(*ADAM, "largest", "yes", "yes", *BETAS, "decay", "decay", "no", "limit", "third"),
            *ORDER,
        ),
        "for bias": (
            *(*ADAM, "largest", "no", "yes", *BETAS, "decay", "decay", "no", "none", "third"),
        ),
        "for input, ordered": (
            *(*ADAM, "none", "yes", "no", *BETAS, "decay", "decay", "no", "limit", "third"),
            *ORDER,
        ),
        "for weights": (*ADAM, "none", "no", "no", *BETAS, "decay", "decay", "no", "none", "third"),
    },
    "column_sum": {"": ("dy",)},
}
UPDATES = ("spmm_backward_sgd", "spmm_backward_adamw")


def call(form: tuple[str, ...], given: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(given[name] for name in form)


def forms_in_turn(operator: str, i: int) -> list[tuple[str, tuple[str, ...]]]:
    """The first two forms of a call, and one of the rest in the i-th turn."""
    forms = list(FORMS[operator].items())
    rest = forms[2:]
    return [*forms[:2], *([rest[i % len(rest)]] if rest else ())]


@cache
def samples(operator: str) -> list[Sample]:
    """Each case in the first two forms of a call, and in one of the rest."""
    found = []
    for i, (name, dtype, index, batch) in enumerate(cases()):
        given = operands(matrix(name, dtype, index), batch, dtype)
        for kind, form in forms_in_turn(operator, i):
            text = label(name, dtype, index, f"batch {batch}", *filter(None, [kind]))
            found.append(Sample(text, call(form, given)))
    return found


def few(operator: str) -> list[Sample]:
    found = []
    for i, (dtype, index, batch) in enumerate(
        [
            (torch.float32, torch.int32, 3),
            (torch.float64, torch.int64, 0),
            (torch.bfloat16, torch.int32, 40),
        ]
    ):
        given = operands(matrix("5x4-typical", dtype, index), batch, dtype)
        for kind, form in forms_in_turn(operator, i):
            found.append(Sample(label(dtype, index, batch, kind), call(form, given)))
    return found


# out_features, in_features, batch. Tall, wide, beyond the caches; tiles taken apart and shared;
# scattered in parts, beside the gradient of the weights and apart from it (csrc/bindings/plan.h).
LARGE = [
    *((300, 500, batch) for batch in (1, 8, 33)),
    *((700, 900, batch) for batch in (1, 2, 33, 100)),
    (3000, 20, 33),
    (3000, 2500, 2),
    (300, 400, 700),
    (4000, 300, 300),
    (60, 9000, 40),
    (100_000, 300, 64),
    (50_000, 40_000, 2),
]


@cache
def large_matrix(
    out_features: int, in_features: int, dtype: torch.dtype, index: torch.dtype
) -> dict[str, Any]:
    """A fifth of the positions or 400,000 nonzeros, without a dense matrix."""
    generator = torch.Generator().manual_seed(1)
    wanted = min(out_features * in_features // 5, 400_000)
    drawn = torch.randint(out_features * in_features, (wanted,), generator=generator)
    positions = drawn.unique()
    rows, columns = positions // in_features, positions % in_features
    by_column = torch.argsort(columns * out_features + rows)

    def pointers(units: Tensor, size: int) -> Tensor:
        return torch.cat([torch.zeros(1).long(), torch.bincount(units, minlength=size).cumsum(0)])

    return {
        "size": (out_features, in_features),
        "crow": pointers(rows, out_features),
        "col": columns.to(index),
        "values": torch.randn(len(rows), generator=generator).to(sum_dtype(dtype)),
        "ccol": pointers(columns, in_features),
        "row": rows[by_column].to(index),
        "permutation": by_column.to(index),
    }


@cache
def large(operator: str) -> list[Sample]:
    found = []
    for i, (out_features, in_features, batch) in enumerate(LARGE):
        # Other dtypes go the same ways: at one size, for the products' tiles of half the width.
        others = (out_features, in_features, batch) == (700, 900, 33)
        for dtype, index in COMBINATIONS if others else COMBINATIONS[:1]:
            w = large_matrix(out_features, in_features, dtype, index)
            given = operands(w, batch, dtype)
            visits = (len(w["col"]) + out_features + in_features) * (-(-batch // 32))
            for kind, form in forms_in_turn(operator, i):
                text = label(out_features, in_features, f"batch {batch}", dtype, index, kind)
                # A dense matrix, multiplied.
                by_oracle = out_features * in_features <= 10**6 and (
                    out_features * in_features * batch <= 10**8
                )
                by_reference = len(w["col"]) * batch <= 10**6  # so many products, all kept
                found.append(Sample(text, call(form, given), visits, by_oracle, by_reference))
    return found


@cache
def column_sums() -> list[Sample]:
    widths = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130]
    return [
        Sample(label(batch, width, dtype), (normal(batch, width, dtype=dtype),))
        for batch in BATCHES
        for width in widths
        for dtype in DTYPES
    ]


@cache
def large_column_sums() -> list[Sample]:
    return [
        Sample(label(size, dtype), (normal(*size, dtype=dtype),), size[0] * size[1] // 16)
        for size in [(200, 2000), (300, 4000), (3, 100_003)]
        for dtype in DTYPES
    ]


# Oracles: dense, in float64.


def dense(crow: Tensor, col: Tensor, values: Tensor, in_features: int) -> Tensor:
    w = torch.zeros(len(crow) - 1, in_features, dtype=torch.float64)
    w[rows_of(crow), col.long()] = values.double()
    return w


def rows_of(crow: Tensor) -> Tensor:
    return torch.arange(len(crow) - 1).repeat_interleave(crow.diff())


def spmm_oracle(
    x: Tensor, crow: Tensor, col: Tensor, values: Tensor, bias: Tensor | None = None
) -> Tensor:
    y = x.double() @ dense(crow, col, values, x.shape[1]).t()
    return y if bias is None else y + bias.double()


def spmm_transposed_oracle(
    dy: Tensor, crow: Tensor, col: Tensor, values: Tensor, in_features: int, *_: Tensor
) -> Tensor:
    return dy.double() @ dense(crow, col, values, in_features)


def sddmm_oracle(dy: Tensor, x: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    return (dy.double().t() @ x.double())[rows_of(crow), col.long()]


def column_sum_oracle(dy: Tensor) -> Tensor:
    return torch.ones(dy.shape[0], dtype=torch.float64) @ dy.double()


def spmm_backward_oracle(
    dy: Tensor,
    x: Tensor,
    crow: Tensor,
    col: Tensor,
    values: Tensor,
    for_input: bool,
    for_bias: bool,
    *_: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    dx = spmm_transposed_oracle(dy, crow, col, values, x.shape[1])
    db = column_sum_oracle(dy)
    return dx if for_input else dx[:0], sddmm_oracle(dy, x, crow, col), db if for_bias else db[:0]


# What must be refused


def damaged(tensor: Tensor, position: int, number: int) -> Tensor:
    copy = tensor.clone()
    copy[position] = number
    return copy


def misfits(operator: str) -> Iterator[IllFormed]:
    """Shapes and dtypes that do not fit, one argument at a time."""
    given = operands(matrix("5x4-typical", torch.float32, torch.int32), 33, torch.float32)
    nnz = len(given["values"])
    changes: dict[str, list[tuple[Any, str]]] = {
        "x": [
            (given["x"][0], r"must have 2 dimension\(s\), got 1"),
            (given["x"][None], r"must have 2 dimension\(s\), got 3"),
        ],
        "dy": [
            (given["dy"][0], r"must have 2 dimension\(s\), got 1"),
            (given["dy"].int(), "must be .*float32, .*float64"),
            (given["dy"].to(torch.complex64), "must be .*float32, .*float64"),
            (given["dy"][:, 1:], r"must have size 5 \(out_features\), got 4"),
        ],
        "crow": [
            (given["crow"].int(), "must have dtype"),
            (given["crow"].double(), "must have dtype"),
            (given["crow"][:0], "must have one entry more"),
            (given["crow"][None], r"must have 1 dimension\(s\), got 2"),
        ],
        "col": [
            (given["col"].short(), "must be .*int32 or .*int64"),
            (given["col"].float(), "must be .*int32 or .*int64"),
            (given["col"][None], r"must have 1 dimension\(s\), got 2"),
        ],
        "values": [
            (given["values"].double(), "must have dtype"),
            (given["values"].bfloat16(), "must have dtype"),
            (given["values"][None], r"must have 1 dimension\(s\), got 2"),
        ],
        "bias": [
            (given["bias"][1:], r"must have size 5 \(out_features\), got 4"),
            (given["bias"].double(), "must have dtype"),
            (given["bias"][None], r"must have 1 dimension\(s\), got 2"),
        ],
        **{
            name: [
                (state[1:], f"must hold one number for each of the {nnz} `values`"),
                (state[None], f"must hold one number for each of the {nnz} `values`"),
                (state.double(), "must have dtype"),
                (state.repeat_interleave(2)[::2], "must be contiguous"),
            ]
            for name, state in given.items()
            if name in ("buffer", "mean", "square", "largest")
        },
        "limit": [(0.0, "must be greater than 0"), (math.nan, "must be greater than 0")],
        "third": [(0.0, "must be at least 1"), (math.nan, "must be at least 1")],
        "in_features": [(-1, "must not be negative")],
        "ccol": [
            (given["ccol"][1:], r"must have size 5 \(in_features \+ 1\), got 4"),
            (given["ccol"].int(), "must have dtype"),
        ],
        "row": [
            (given["row"][1:], f"must have size {nnz} .*, got {nnz - 1}"),
            (given["row"].long(), "must have dtype"),
            (given["row"][None], r"must have 1 dimension\(s\), got 2"),
        ],
        "permutation": [
            (given["permutation"][1:], f"must have size {nnz} .*, got {nnz - 1}"),
            (given["permutation"].long(), "must have dtype"),
        ],
    }
    if operator == "spmm":
        changes["x"].append((given["x"].int(), "must be .*float32, .*float64"))
    elif operator in ("sddmm", "spmm_backward", *UPDATES):
        changes["x"].append((given["x"].double(), "must have dtype"))
        changes["dy"].append((given["dy"][1:], "must have size 33 .*, got 32"))
    of_backward = operator == "spmm_backward" or operator in UPDATES
    kind, form = list(FORMS[operator].items())[1 if of_backward else -1]
    if operator in UPDATES:
        spread = given["values"].repeat_interleave(2)[::2]
        changes["values"].append((spread, "must be contiguous"))
        shared = {**given, "buffer": given["values"], "square": given["mean"]}
        yield IllFormed("shared", call(form, shared), "must not share memory")
    for name in form:
        for wrong, text in changes.get(name, ()):
            if operator == "column_sum" and "out_features" in text:
                continue  # any width will do
            yield IllFormed(
                label(kind, name, text),
                call(form, {**given, name: wrong}),
                f"`{FULL_NAMES.get(name, name)}` {text}",
            )
    if "values" in form:
        short = {**given, "values": given["values"][1:]}
        text = f"`col_indices` must have size {nnz - 1} .*, got {nnz}"
        yield IllFormed("one value too few", call(form, short), text)
    if operator == "spmm":
        double = {**given, "x": given["x"].double()}
        yield IllFormed("float64 input", call(form, double), "`values` must have dtype")


OUTSIDE = [-1, 1 << 30, -(1 << 31)]
POINTERS_OUTSIDE = [-1, 10**15, -(2**62)]
TOPOLOGY = "indices|topology"  # what an error about the content of a topology names


def indices_outside(operator: str) -> Iterator[IllFormed]:
    """One column index, row index or place of the transposed order that lies outside."""
    for batch in (1, 2, 8, 16, 40):
        for dtype, index in COMBINATIONS[:: 4 if batch in (2, 40) else 8]:
            w = matrix("40x31-uneven", dtype, index)
            given = operands(w, batch, dtype)
            nnz = len(w["col"])
            for kind, form in FORMS[operator].items():
                ordered = "permutation" in form and batch > 16
                for name in ("col", "row", "permutation"):
                    # The column order is read instead of the row order where both are not.
                    read = (
                        ordered if name != "col" else (operator != "spmm_transposed" or not ordered)
                    )
                    for position in (0, nnz // 2, nnz - 1) if read and name in form else ():
                        for bad in OUTSIDE:
                            wrong = {**given, name: damaged(given[name], position, bad)}
                            text = label(kind, index, batch, f"{name}[{position}] = {bad}")
                            yield IllFormed(text, call(form, wrong), TOPOLOGY)


def pointers_outside(operator: str) -> Iterator[IllFormed]:
    """One row or column pointer that lies outside, in small matrices and such that are split."""
    for size in [(40, 31), (400, 300)]:
        for batch in (1, 2, 8, 40):
            dtype, index = COMBINATIONS[0]
            w = (
                matrix("40x31-uneven", dtype, index)
                if size[0] == 40
                else large_matrix(*size, dtype, index)
            )
            given = operands(w, batch, dtype)
            for kind, form in FORMS[operator].items():
                ordered = "permutation" in form and batch > 16
                for name, extent in (("crow", size[0]), ("ccol", size[1])):
                    middle = [] if ordered and operator == "spmm_transposed" else [extent // 2]
                    rows = [0, *middle, extent] if name == "crow" else [0, extent // 2, extent]
                    for row in rows if name == "crow" or ordered else ():
                        for bad in POINTERS_OUTSIDE:
                            wrong = {**given, name: damaged(given[name], row, bad)}
                            text = label(kind, size, batch, f"{name}[{row}] = {bad}")
                            yield IllFormed(text, call(form, wrong), TOPOLOGY)


def uncovered(operator: str) -> Iterator[IllFormed]:
    """Row pointers that leave nonzeros out, and nonzeros of a matrix without columns or rows."""
    given = operands(matrix("5x4-typical", torch.float32, torch.int32), 3, torch.float32)
    two = {
        **given,
        "col": torch.tensor([0, 1] * 3, dtype=torch.int32),
        "values": torch.ones(6),
        "x": torch.ones(2, 2),
        "dy": torch.ones(2, 2),
        "bias": torch.ones(2),
        "in_features": 2,
    }
    none = {
        "no columns": {"x": torch.ones(2, 0), "in_features": 0, "crow": torch.tensor([0, 0, 6])},
        "no rows": {"dy": torch.ones(2, 0), "bias": torch.ones(0), "crow": torch.tensor([0])},
    }
    kind, form = next(iter(FORMS[operator].items()))
    for crow in [0, 0, 0], [2, 3, 6], [0, 3, 5], [1, 1, 1]:
        wrong = {**two, "crow": torch.tensor(crow)}
        yield IllFormed(label(kind, crow), call(form, wrong), TOPOLOGY)
    for text, changes in none.items():
        yield IllFormed(text, call(form, {**two, **changes}), TOPOLOGY)


def ill_formed(operator: str) -> list[IllFormed]:
    return [
        *misfits(operator),
        *indices_outside(operator),
        *pointers_outside(operator),
        *uncovered(operator),
    ]


PRODUCTS = [
    Operator(
        "spmm",
        partial(samples, "spmm"),
        partial(few, "spmm"),
        partial(ill_formed, "spmm"),
        large=partial(large, "spmm"),
        split_from=SERIAL_VISITS,
        reference=spmm_reference,
        oracle=spmm_oracle,
        terms=lambda x, *_: (x.shape[1] + 1,),
        arbitrary=frozenset({"input", "values", "bias"}),
    ),
    Operator(
        "spmm_transposed",
        partial(samples, "spmm_transposed"),
        partial(few, "spmm_transposed"),
        partial(ill_formed, "spmm_transposed"),
        large=partial(large, "spmm_transposed"),
        split_from=SERIAL_VISITS,
        reference=spmm_transposed_reference,
        oracle=spmm_transposed_oracle,
        terms=lambda dy, *_: (dy.shape[1],),
        arbitrary=frozenset({"grad_output", "values"}),
    ),
    Operator(
        "sddmm",
        partial(samples, "sddmm"),
        partial(few, "sddmm"),
        partial(ill_formed, "sddmm"),
        large=partial(large, "sddmm"),
        split_from=SERIAL_VISITS,
        reference=sddmm_reference,
        oracle=sddmm_oracle,
        terms=lambda dy, *_: (dy.shape[0],),
        arbitrary=frozenset({"grad_output", "input"}),
    ),
    Operator(
        "spmm_backward",
        partial(samples, "spmm_backward"),
        partial(few, "spmm_backward"),
        partial(ill_formed, "spmm_backward"),
        large=partial(large, "spmm_backward"),
        split_from=SERIAL_VISITS,
        reference=spmm_backward_reference,
        oracle=spmm_backward_oracle,
        terms=lambda dy, *_: (dy.shape[1], dy.shape[0], dy.shape[0]),
        arbitrary=frozenset({"grad_output", "input", "values"}),
    ),
    Operator(
        "column_sum",
        column_sums,
        partial(few, "column_sum"),
        lambda: list(misfits("column_sum")),
        large=large_column_sums,
        split_from=SERIAL_VISITS,
        reference=column_sum_reference,
        portable=True,
        oracle=column_sum_oracle,
        terms=lambda dy: (dy.shape[0],),
        arbitrary=frozenset({"grad_output"}),
    ),
]
