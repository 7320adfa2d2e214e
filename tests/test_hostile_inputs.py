"""What no caller should do: every case ends in an error that can be caught, never in a crash.

Whatever might crash runs in forked children of one fresh Python (this file as a program), where a
crash is an outcome like any other.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import signal
from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import INDEX_DTYPES, Matrix, random_mask, run_python, valid_topology
from torch import Tensor

from torch_truly_sparse import MaskedLinear, SparseEvolution, TrulySparseLinear, ops
from torch_truly_sparse._library import operators
from torch_truly_sparse.functional import sparse_linear

INT32_MAX = 2**31 - 1
OUT, IN, NNZ = 60, 50, 900


# Writes behind the layer's back, after it has been used


def used_layer() -> TrulySparseLinear:
    torch.manual_seed(0)
    layer = TrulySparseLinear(IN, OUT, nnz=NNZ)
    layer(torch.ones(3, IN, requires_grad=True)).sum().backward()
    return layer


def _write_numpy(tensor: Tensor, number: int) -> None:
    tensor.numpy()[:] = number


WRITES: dict[str, Callable[[Tensor, int], object]] = {
    "data": lambda tensor, number: tensor.data.fill_(number),
    "numpy": _write_numpy,
}
NUMBERS = {"huge": INT32_MAX, "most negative": -(2**31), "-1": -1}
FIRST_OUTSIDE = {
    "rows": OUT,
    "columns": IN,
    "last column": IN,
    "all indices": OUT,
    "crow_indices": NNZ + 1,
}
EACH_NUMBER = [*NUMBERS, "first outside"]


def number_for(part: str, name: str) -> int:
    return NUMBERS.get(name, FIRST_OUTSIDE[part])


PARTS: dict[str, Callable[[TrulySparseLinear], Tensor]] = {
    "rows": lambda layer: layer.indices[0],
    "columns": lambda layer: layer.indices[1],
    "last column": lambda layer: layer.indices[1, -1:],
    "all indices": lambda layer: layer.indices,
    "crow_indices": lambda layer: layer.crow_indices,
}


def _train(layer: TrulySparseLinear, batch: int = 3) -> list[Tensor]:
    x = torch.ones(batch, IN, requires_grad=True)
    y = layer(x)
    return [y, *torch.autograd.grad(y.sum(), (x, layer.values, layer.bias))]


USES: dict[str, Callable[[TrulySparseLinear], object]] = {
    "training": _train,
    "training on one sample": partial(_train, batch=1),
    "training on a large batch": partial(_train, batch=64),
    "training a copy": lambda layer: _train(copy.deepcopy(layer)),
    "to_dense": lambda layer: layer.to_dense(),
    "weight": lambda layer: layer.weight.to_dense(),
    "multiplying by weight": lambda layer: torch.sparse.mm(layer.weight, torch.ones(IN, 3)),
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "masking": MaskedLinear.from_sparse,
    "saving and loading": lambda layer: used_layer().load_state_dict(layer.state_dict()),
    "evolving": lambda layer: SparseEvolution(
        layer, torch.optim.SGD(layer.parameters(), lr=0.1)
    ).step(),
}
HARMED = {
    "training": ["columns", "last column", "all indices", "crow_indices"],
    "training on one sample": ["columns", "crow_indices"],
    "training on a large batch": ["columns", "last column", "crow_indices"],
    "training a copy": ["rows", "columns", "last column"],
    "to_dense": ["rows", "columns"],
    "weight": ["rows", "columns"],
    "multiplying by weight": ["rows", "columns"],
    "reset_parameters": ["rows", "columns"],
    "masking": ["rows", "columns"],
    "saving and loading": ["rows", "columns"],
    "evolving": ["rows", "columns"],
}
WRITTEN = [
    (use, part, number, how)
    for use, parts in HARMED.items()
    for part, number, how in product(parts, EACH_NUMBER, WRITES)
    if how == "data" or use == "training"
]


def write_and_use(use: str, part: str, number: str, how: str) -> None:
    layer = used_layer()
    WRITES[how](PARTS[part](layer), number_for(part, number))
    USES[use](layer)


def write_between_forward_and_backward(part: str, number: str) -> None:
    layer = used_layer()
    x = torch.ones(3, IN, requires_grad=True)
    y = layer(x)
    PARTS[part](layer).data.fill_(number_for(part, number))
    y.sum().backward()


# Ill-formed arguments of the operators themselves

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
        lambda: ops.spmm(x, crow, col, w.values),
        (lambda: _loops(x, crow.tolist(), col.tolist(), w.values)) if harmless and fits else None,
        whole and fits,
    )
    _expect(
        lambda: ops.sddmm(dy, x, crow, col),
        (lambda: ops.sddmm(dy.clone(), x.clone(), crow, col)) if whole else None,
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
        lambda: ops.transpose(crow, col, columns).permutation.long().sort().values,
        (lambda: torch.arange(len(col))) if whole or (harmless and not len(col)) else None,
        whole,
    )


def _gradients(dy: Tensor, x: Tensor, crow: Tensor, col: Tensor, values: Tensor) -> Tensor:
    dx, dw, db = ops.spmm_backward(dy, x, crow, col, values, for_input=True, for_bias=True)
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
        lambda: ops.compress(indices, rows, columns).diff(),
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
        lambda: ops.spmm(x, crow, w.col, w.values),
        lambda: ops.sddmm(dy, x, crow, w.col),
        lambda: _gradients(dy, x, crow, w.col, w.values),
    ):
        # The numbers are compared elsewhere: here, whether there are any.
        _expect(
            lambda compute=compute: torch.tensor(compute().dim()),
            (lambda compute=compute: torch.tensor(compute().dim())) if harmless else None,
            whole,
        )


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


# The program


def cases() -> dict[str, Callable[[], object]]:
    table = {repr(case): partial(write_and_use, *case) for case in WRITTEN}
    for part, number in product(PARTS, EACH_NUMBER):
        name = f"backward: {part}, {number}"
        table[name] = partial(write_between_forward_and_backward, part, number)
    for function, rounds in FUZZ.items():
        table[function.__name__] = partial(fuzz, function, rounds)
    return table


def outcome_of(case: Callable[[], object]) -> str:
    """Run it in a child: "done", the error, or the signal that killed it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            case()
            text = "done"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return text


def main() -> None:
    # Gigabytes asked for because of a wild index are a failure, not a reason to swap.
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, hard))
    # What torch imports on first use, the children then have.
    layer = TrulySparseLinear(5, 4, nnz=3)
    SparseEvolution(layer, torch.optim.SGD(layer.parameters(), lr=0.1)).step()
    MaskedLinear.from_sparse(layer)
    print(json.dumps({name: outcome_of(case) for name, case in cases().items()}))


@pytest.fixture(scope="session")
def outcomes() -> dict[str, str]:
    child = run_python(__file__, cwd=Path(__file__).parent)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


@pytest.mark.parametrize(("use", "part", "number", "how"), WRITTEN)
def test_writes_behind_the_layers_back_are_value_errors(outcomes, use, part, number, how):
    assert outcomes[repr((use, part, number, how))].startswith("ValueError: ")


@pytest.mark.parametrize(("part", "number"), list(product(PARTS, EACH_NUMBER)))
def test_writes_between_forward_and_backward_are_harmless(outcomes, part, number):
    outcome = outcomes[f"backward: {part}, {number}"]
    if part == "rows":  # the row pointers stand for them: the result is that of before the write
        assert outcome == "done"
    else:
        assert outcome.startswith("ValueError: ")


@pytest.mark.parametrize("function", [function.__name__ for function in FUZZ])
def test_ill_formed_arguments_are_refused_and_well_formed_ones_computed(outcomes, function):
    assert outcomes[function] == "done"


# Arguments of the wrong kind


def _call(**changes: object) -> Tensor:
    arguments = {
        "input": torch.ones(2, 5),
        "indices": torch.tensor([[0, 1, 1], [4, 0, 2]]),
        "values": torch.ones(3),
        "bias": torch.ones(4),
        "out_features": 4,
    }
    return sparse_linear(**{**arguments, **changes})


ONES = torch.ones(3)
INDICES = torch.tensor([[0, 1, 1], [4, 0, 2]])


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"input": np.ones((2, 5))}, TypeError, "`input` must be a torch.Tensor, got ndarray"),
        ({"input": torch.ones(())}, ValueError, "got a scalar"),
        ({"input": torch.ones(2, 4)}, ValueError, "outside .*in_features"),
        (
            {"input": torch.ones(2, 5).double()},
            TypeError,
            "must share one dtype, got torch.float64",
        ),
        ({"input": torch.ones(2, 5).int()}, TypeError, "must share one dtype, got torch.int32"),
        ({"indices": INDICES.numpy()}, TypeError, "`indices` must be a torch.Tensor, got ndarray"),
        ({"indices": INDICES.tolist()}, TypeError, "`indices` must be a torch.Tensor, got list"),
        ({"indices": INDICES.float()}, TypeError, "`indices` must be int32 or int64"),
        ({"indices": INDICES.short()}, TypeError, "`indices` must be int32 or int64"),
        ({"indices": INDICES.bool()}, TypeError, "`indices` must be int32 or int64"),
        ({"indices": INDICES.to_sparse()}, TypeError, "`indices` must be a strided tensor"),
        ({"indices": INDICES.t()}, ValueError, r"`indices` must have shape \(2, nnz\)"),
        ({"indices": INDICES[0]}, ValueError, r"`indices` must have shape \(2, nnz\)"),
        ({"indices": INDICES[None]}, ValueError, r"`indices` must have shape \(2, nnz\)"),
        ({"indices": INDICES.flip(1)}, ValueError, "`indices` must be sorted"),
        ({"indices": INDICES - 1}, ValueError, r"is \(-1, 3\), whose output unit is outside"),
        ({"indices": INDICES + 2}, ValueError, r"is \(2, 6\), whose input unit is outside"),
        ({"values": ONES[:2]}, ValueError, r"`values` must have shape \(3,\), .* got \(2,\)"),
        ({"values": ONES[None]}, ValueError, r"`values` must have shape \(3,\), .* got \(1, 3\)"),
        ({"values": ONES.double()}, TypeError, "must share one dtype"),
        ({"values": ONES.double().requires_grad_()}, TypeError, "must share one dtype"),
        ({"bias": torch.ones(3)}, ValueError, r"`bias` must have shape \(4,\)"),
        ({"bias": torch.ones(4).double()}, TypeError, "must share one dtype"),
        ({"out_features": 1}, ValueError, r"outside \[0, out_features\) = \[0, 1\)"),
        ({"out_features": -1}, ValueError, "`out_features` must not be negative, got -1"),
        ({"out_features": 4.0}, TypeError, "`out_features` must be an int, got float"),
        ({"out_features": True}, TypeError, "`out_features` must be an int, got bool"),
        ({"values": [1.0] * 3}, TypeError, "`values` must be a torch.Tensor, got list"),
        ({"values": None}, TypeError, "`values` must be a torch.Tensor, got NoneType"),
        ({"values": ONES.numpy()}, TypeError, "`values` must be a torch.Tensor"),
        ({"values": ONES.to_sparse()}, TypeError, "`values` must be a strided tensor"),
        ({"bias": [1.0] * 4}, TypeError, "`bias` must be a torch.Tensor, got list"),
        ({"bias": torch.ones(4).to_sparse()}, TypeError, "`bias` must be a strided"),
        ({"input": torch.ones(2, 5).to_sparse()}, TypeError, "`input` must be a strided"),
        ({"input": torch.ones(2, 5).to("meta")}, ValueError, "one device"),
        ({"indices": INDICES.to("meta")}, ValueError, "one device"),
        ({"values": ONES.to("meta")}, ValueError, "one device"),
    ],
)
def test_sparse_linear_names_the_argument_that_does_not_fit(changes, error, text):
    with pytest.raises(error, match=text):
        _call(**changes)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused_with_the_way_around(layout):
    parts = [torch.randn(2, 5), torch.randn(3, 5)]
    nested = torch.nested.nested_tensor(parts, layout=layout)
    layer = TrulySparseLinear(5, 4, nnz=6)
    for call in (layer, lambda input: _call(input=input)):
        with pytest.raises(TypeError, match="`input` must not be a nested tensor"):
            call(nested)
    if layout == torch.jagged:
        output = layer(nested.values())
        output = torch.nested.nested_tensor_from_jagged(output, nested.offsets())
        for part, own in zip(parts, output.unbind(), strict=True):
            torch.testing.assert_close(own, layer(part))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64])
def test_dtypes_without_a_kernel_are_refused_by_name(dtype):
    changes = {"input": torch.ones(2, 5), "values": ONES, "bias": torch.ones(4)}
    with pytest.raises((TypeError, ValueError), match="must be float32 or float64"):
        _call(**{name: tensor.to(dtype) for name, tensor in changes.items()})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_nonfinite_values_are_values_like_any_other(number):
    values = ONES.clone()
    values[1] = number
    y = _call(values=values)
    assert y[:, [0, 2, 3]].isfinite().all()
    assert not y[:, 1].isfinite().any()
    layer = TrulySparseLinear(5, 4, nnz=3)
    layer.values.data.fill_(number)
    other = TrulySparseLinear(5, 4, nnz=7)
    other.load_state_dict(layer.state_dict())
    torch.testing.assert_close(other.values, layer.values, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("sizes", [(np.int64(5), 4), (5, np.int64(4))])
def test_sizes_may_be_numpy_integers(sizes):
    assert TrulySparseLinear(*sizes, nnz=np.int64(3)).nnz == 3


if __name__ == "__main__":
    main()
