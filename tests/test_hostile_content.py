"""Integers of any content in the arguments of operators: refused, or computed; never a crash."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import laws
import pytest
import torch
from forked import outcomes_of, print_outcomes
from operators import OPERATORS
from oracles import INDEX_DTYPES, Matrix, random_mask, valid_topology
from torch import Tensor

from torch_truly_sparse._library import operators

INT32_MAX = 2**31 - 1
POOL = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 5, 6, 7, INT32_MAX, 2**31, 2**62, 2**63 - 1]


def _spoil(tensor: Tensor, luck: random.Random) -> Tensor:
    """Overwrite some entries, now and then change the length."""
    limits = torch.iinfo(tensor.dtype)
    numbers = tensor.tolist()
    pool = [n for n in POOL if limits.min <= n <= limits.max] + [len(numbers), len(numbers) - 1]
    for _ in range(luck.choice([0, 0, 1, 1, 2, 5])):
        if numbers:
            numbers[luck.randrange(len(numbers))] = luck.choice(pool)
    if luck.random() < 0.1:
        numbers = numbers[: luck.randrange(len(numbers) + 1)] + [0] * luck.randrange(3)
    return torch.tensor(numbers, dtype=tensor.dtype)


def _judge(crow: list[int], col: list[int], extent: int) -> tuple[bool, bool]:
    """Whether every access is harmless, and whether moreover the rows cover all entries once."""
    harmless = all(0 <= a <= b <= len(col) for a, b in pairwise(crow))
    if not harmless:
        return False, False
    covered = col[crow[0] : crow[-1]] if len(crow) > 1 else []
    harmless = all(0 <= c < extent for c in covered)
    return harmless, harmless and crow[0] == 0 and crow[-1] == len(col) and len(crow) > 0


def _loops(x: Tensor, crow: list[int], col: list[int], values: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], len(crow) - 1, dtype=x.dtype)
    for row, (begin, end) in enumerate(pairwise(crow)):
        for k in range(begin, end):
            y[:, row] += values[k] * x[:, col[k]]
    return y


def _expect(compute: Callable[[], Tensor], expected: Callable[[], Tensor] | None, must: bool):
    """`expected` None: only a ValueError will do. `must`: only the result will do."""
    try:
        result = compute()
    except ValueError:
        assert not must, "refused, though well-formed"
        return
    assert expected is not None, "accepted, though ill-formed"
    torch.testing.assert_close(result, expected())


def fuzz_products(luck: random.Random) -> None:
    rows, columns = luck.randrange(8), luck.randrange(8)
    w = Matrix.of_mask(torch.rand(rows, columns) < 0.4, index=luck.choice(INDEX_DTYPES))
    batch = luck.choice([1, 2, 5, 17])
    crow, col = _spoil(w.crow, luck), _spoil(w.col, luck)
    if not len(crow):
        return
    x, dy = torch.randn(batch, columns), torch.randn(batch, len(crow) - 1)
    harmless, whole = _judge(crow.tolist(), col.tolist(), columns)
    fits = len(col) == len(w.values)
    _expect(
        lambda: operators.spmm(x, crow, col, w.values),
        (lambda: _loops(x, crow.tolist(), col.tolist(), w.values)) if harmless and fits else None,
        whole and fits,
    )
    _expect(
        lambda: operators.sddmm(dy, x, crow, col),
        (lambda: operators.sddmm(dy.clone(), x.clone(), crow, col)) if whole else None,
        whole,
    )
    _expect(
        lambda: _gradients(dy, x, crow, col, w.values),
        (lambda: _gradients(dy.clone(), x.clone(), crow, col, w.values))
        if whole and fits
        else None,
        whole and fits,
    )
    _expect(
        lambda: operators.transpose(crow, col, columns)[2].long().sort().values,
        (lambda: torch.arange(len(col))) if whole or (harmless and not len(col)) else None,
        whole,
    )


def _gradients(dy: Tensor, x: Tensor, crow: Tensor, col: Tensor, values: Tensor) -> Tensor:
    dx, dw, db = operators.spmm_backward(dy, x, crow, col, values, True, True)
    return torch.cat([dx.flatten(), dw, db])


def fuzz_transposed(luck: random.Random) -> None:
    rows, columns = luck.randrange(8), luck.randrange(8)
    w = Matrix.of_mask(torch.rand(rows, columns) < 0.4, index=luck.choice(INDEX_DTYPES))
    ccol, row, order = _spoil(w.ccol, luck), _spoil(w.row, luck), _spoil(w.permutation, luck)
    if not len(ccol):
        return
    dy = torch.randn(17, rows)  # smaller batches do not read the transposed order
    harmless, whole = _judge(ccol.tolist(), row.tolist(), rows)
    fits = len(row) == len(order) == len(w.values) and len(ccol) == columns + 1
    fits = fits and all(0 <= k < len(order) for k in order.tolist())
    _expect(
        lambda: operators.spmm_transposed(dy, w.crow, w.col, w.values, columns, ccol, row, order),
        (lambda: _loops(dy, ccol.tolist(), row.tolist(), w.values[order.long()]))
        if harmless and fits
        else None,
        whole and fits,
    )
    x = torch.randn(17, columns)
    matrix = (dy, x, w.crow, w.col, w.values, True, True)
    _expect(
        lambda: operators.spmm_backward(*matrix, ccol, row, order)[0],
        (lambda: operators.spmm_transposed(*matrix[:1], *matrix[2:5], columns, ccol, row, order))
        if whole and fits
        else None,
        whole and fits,
    )


def fuzz_compress(luck: random.Random) -> None:
    rows, columns = luck.randrange(6), luck.randrange(6)
    w = Matrix.of_mask(torch.rand(rows, columns) < 0.5, index=luck.choice(INDEX_DTYPES))
    indices = _spoil(w.indices.flatten(), luck)
    indices = indices[: len(indices) // 2 * 2].view(2, -1)
    valid = valid_topology(indices, rows, columns)
    counts = torch.bincount(indices[0].long(), minlength=rows) if valid else None
    _expect(
        lambda: operators.compress(indices, rows, columns).diff(),
        (lambda: counts) if valid else None,
        valid,
    )


def fuzz_split_products(luck: random.Random) -> None:
    """Big enough to be divided among threads, by row pointers that lie."""
    torch.set_num_threads(2)
    w = Matrix.of_mask(random_mask(300, 40, 4000, seed=luck.randrange(100)))
    crow = w.crow.clone()
    for _ in range(luck.choice([0, 1, 3, 100])):
        crow[luck.randrange(301)] = luck.choice([*POOL, 4000, 4001])
    x, dy = torch.randn(16, 40), torch.randn(16, 300)
    harmless, whole = _judge(crow.tolist(), w.col.tolist(), 40)
    for compute in (
        lambda: operators.spmm(x, crow, w.col, w.values),
        lambda: operators.sddmm(dy, x, crow, w.col),
        lambda: _gradients(dy, x, crow, w.col, w.values),
    ):
        # The numbers are compared elsewhere: here, whether there are any.
        _expect(
            lambda compute=compute: torch.tensor(compute().dim()),
            (lambda compute=compute: torch.tensor(compute().dim())) if harmless else None,
            whole,
        )


def fuzz_operator(name: str) -> None:
    """Any operator of the table, by the law that holds for all of them."""
    torch.set_num_threads(2)
    samples = OPERATORS[name].samples()
    chosen = [*samples[:: max(1, len(samples) // 100)], *OPERATORS[name].large()[:4]]
    laws.apply(laws.survives_hostile_content, OPERATORS[name], chosen)


FUZZ = {
    fuzz_products: 1000,
    fuzz_transposed: 1000,
    fuzz_compress: 1000,
    fuzz_split_products: 40,
}


def fuzz(function: Callable[[random.Random], None], rounds: int) -> None:
    for seed in range(rounds):
        torch.manual_seed(seed)
        try:
            function(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"{function.__name__}, seed {seed}: {error}") from error


@pytest.fixture(scope="session")
def outcomes() -> dict[str, str]:
    return outcomes_of(__file__)


@pytest.mark.parametrize("function", [function.__name__ for function in FUZZ])
def test_ill_formed_arguments_are_refused_and_well_formed_ones_computed(outcomes, function):
    assert outcomes[function] == "done"


@pytest.mark.parametrize("name", OPERATORS)
def test_no_content_of_integers_reaches_foreign_memory(outcomes, name):
    assert outcomes[name] == "done"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for entry in OPERATORS.values():  # once for all children
        entry.samples(), entry.large()
    cases = {f.__name__: partial(fuzz, f, rounds) for f, rounds in FUZZ.items()}
    print_outcomes({**cases, **{name: partial(fuzz_operator, name) for name in OPERATORS}})
