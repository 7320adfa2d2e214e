"""The compiled products against dense W * mask in float64, at the edges of every kernel form."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import torch_truly_sparse as tts
from torch_truly_sparse import ops
from torch_truly_sparse.ops import differentiable

BATCHES = [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100]
SHAPES = [(1, 1), (3, 5), (16, 16), (17, 33), (40, 31), (70, 130)]  # (out, in)
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def sum_dtype(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


class Case:
    """A random sparse matrix with empty rows and columns and one full row, and its activations."""

    def __init__(self, out, in_, batch, dtype, index=torch.int32, density=0.3, seed=0):
        g = torch.Generator().manual_seed(seed)
        mask = torch.rand(out, in_, generator=g) < density
        mask[out // 2] = True
        mask[:: max(out // 3, 1)] = False
        mask[:, :: max(in_ // 3, 1)] = False
        self.mask, self.size = mask, (out, in_)
        rows, cols = mask.nonzero(as_tuple=True)
        weights = torch.randn(out, in_, generator=g, dtype=torch.float64)
        self.values = weights[rows, cols].to(sum_dtype(dtype))
        self.bias = torch.randn(out, generator=g, dtype=torch.float64).to(sum_dtype(dtype))
        self.x = torch.randn(batch, in_, generator=g, dtype=torch.float64).to(dtype)
        self.dy = torch.randn(batch, out, generator=g, dtype=torch.float64).to(dtype)
        self.rows, self.cols = rows, cols
        indices = torch.stack([rows, cols]).to(index)
        self.crow, self.col = ops.compress(indices, out, in_), indices[1]
        self.order = ops.transpose(self.crow, self.col, in_)

    @property
    def dense(self):
        w = torch.zeros(self.size, dtype=torch.float64)
        w[self.rows, self.cols] = self.values.double()
        return w

    def spmm(self, x=None, bias=True):
        x = self.x if x is None else x
        return ops.spmm(x, self.crow, self.col, self.values, self.bias if bias else None)

    def spmm_transposed(self, dy=None, ordered=True):
        dy = self.dy if dy is None else dy
        order = self.order if ordered else None
        return ops.spmm_transposed(dy, self.crow, self.col, self.values, self.size[1], order)

    def sddmm(self, dy=None, x=None):
        dy, x = self.dy if dy is None else dy, self.x if x is None else x
        return ops.sddmm(dy, x, self.crow, self.col)

    def products(self):
        return (
            self.spmm(),
            self.spmm_transposed(),
            self.spmm_transposed(ordered=False),
            self.sddmm(),
            ops.column_sum(self.dy),
            *self.backward(),
            *self.backward(ordered=False),
        )

    def backward(self, dy=None, x=None, ordered=True):
        dy, x = self.dy if dy is None else dy, self.x if x is None else x
        order = self.order if ordered else None
        return ops.spmm_backward(
            dy, x, self.crow, self.col, self.values, order, for_input=True, for_bias=True
        )

    def expected(self):
        x, dy, w = self.x.double(), self.dy.double(), self.dense
        return (
            x @ w.T + self.bias.double(),
            dy @ w,
            dy @ w,
            (dy.T @ x)[self.rows, self.cols],
            dy.sum(0),
            *2 * (dy @ w, (dy.T @ x)[self.rows, self.cols], dy.sum(0)),
        )


def check(actual, expected, terms):
    """Compare with the bound of a sum of `terms` products of order one, rounded once more."""
    unit = torch.finfo(actual.dtype).eps
    working = torch.finfo(sum_dtype(actual.dtype)).eps
    atol = 8 * working * max(terms, 1)
    torch.testing.assert_close(actual.double(), expected, atol=atol + unit / 8, rtol=unit)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("size", SHAPES, ids=str)
def test_products_match_the_dense_oracle(size, batch, dtype):
    case = Case(*size, batch, dtype)
    outputs = case.products()
    out, in_ = size
    sums = sum_dtype(dtype)
    assert [o.dtype for o in outputs] == [dtype] * 3 + [sums] * 2 + [dtype, sums, sums] * 2
    for actual, expected, terms in zip(
        outputs,
        case.expected(),
        (in_, out, out, batch, batch, *2 * (out, batch, batch)),
        strict=True,
    ):
        check(actual, expected, terms)


@pytest.mark.parametrize("batch", [2, 5, 33])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_int64_indices_give_what_int32_gives(dtype, batch):
    narrow = Case(40, 31, batch, dtype, torch.int32).products()
    wide = Case(40, 31, batch, dtype, torch.int64).products()
    for a, b in zip(narrow, wide, strict=True):
        check(a, b.double(), 40)


@pytest.mark.parametrize("batch", [1, 2, 7, 33])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full(density, batch):
    case = Case(20, 30, batch, torch.float32, density=density)
    for actual, expected in zip(case.products(), case.expected(), strict=True):
        check(actual, expected, 100)


def test_no_nonzeros_at_all_leave_the_bias():
    crow, col = torch.zeros(4, dtype=torch.int64), torch.empty(0, dtype=torch.int32)
    bias = torch.arange(3.0)
    y = ops.spmm(torch.ones(5, 7), crow, col, torch.empty(0), bias)
    assert torch.equal(y, bias.expand(5, 3))
    for order in (None, ops.transpose(crow, col, 7)):
        for batch in (5, 40):
            dx = ops.spmm_transposed(torch.ones(batch, 3), crow, col, torch.empty(0), 7, order)
            assert torch.equal(dx, torch.zeros(batch, 7))
    assert ops.sddmm(torch.ones(5, 3), torch.ones(5, 7), crow, col).shape == (0,)


@pytest.mark.parametrize("batch", [1, 2, 9, 40])
def test_non_contiguous_and_expanded_inputs(batch):
    case = Case(23, 37, batch, torch.float32)
    x, dy = case.x, case.dy
    strided_x = torch.stack([x, x], dim=2)[:, :, 1]
    columns_first = dy.T.contiguous().T
    assert torch.equal(case.spmm(strided_x), case.spmm())
    assert torch.equal(case.spmm_transposed(columns_first), case.spmm_transposed())
    assert torch.equal(case.sddmm(columns_first, strided_x), case.sddmm())
    ones = torch.ones(()).expand(batch, 23)  # as `output.sum().backward()` hands it over
    check(case.spmm_transposed(ones), ones.double() @ case.dense, 23)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_as_torch_does(dtype):
    # One weight of 1: the output is the input, so only the conversions are left. Every bit
    # pattern goes in; what is finite, infinite or zero must come back as it was, NaN as NaN.
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = patterns.reshape(-1, 64)
    indices = torch.arange(64, dtype=torch.int32).repeat(2, 1)
    crow = ops.compress(indices, 64, 64)
    y = ops.spmm(x, crow, indices[1], torch.ones(64))
    assert torch.equal(y.isnan(), x.isnan())
    known = ~x.isnan()
    assert torch.equal(y[known], x[known])
    # A bias makes a float32 number of any size: it must be rounded once, to nearest even.
    g = torch.Generator().manual_seed(0)
    bias = torch.randn(64, generator=g) * torch.logspace(-9, 6, 64)
    bias[:3] = torch.tensor([65519.0, 65520.0, -1e30])
    y = ops.spmm(torch.zeros(33, 64, dtype=dtype), crow, indices[1], torch.ones(64), bias)
    assert torch.equal(y, bias.to(dtype).expand(33, 64))


OUTSIDE = [-1, 1 << 30, -(1 << 31)]


def check_all_raise(case, text):
    """What reads the rows and columns of the matrix must name the one that was damaged."""
    for product in (
        case.spmm,
        case.sddmm,
        partial(case.spmm_transposed, ordered=False),
        partial(case.backward, ordered=False),
        case.backward,
    ):
        with pytest.raises(ValueError, match=text):
            product()


@pytest.mark.parametrize("index", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("bad", OUTSIDE)
@pytest.mark.parametrize("batch", [1, 2, 8, 16, 40])
def test_an_index_outside_raises(batch, bad, index):
    case = Case(20, 30, batch, torch.float32, index)
    for position in (0, case.col.shape[0] // 2, case.col.shape[0] - 1):
        good = case.col[position].item()
        case.col[position] = bad
        check_all_raise(case, rf"`col_indices\[{position}\]` is {bad}, outside \[0, in_features\)")
        case.col[position] = good
        for name in ("row_indices", "permutation") if batch > 16 else ():
            damaged = getattr(case.order, name)
            good = damaged[position].item()
            damaged[position] = bad
            text = rf"`{name}\[{position}\]` is {bad}, outside \[0, "
            with pytest.raises(ValueError, match=text):
                case.spmm_transposed()
            with pytest.raises(ValueError, match=text):
                case.backward()
            damaged[position] = good
    for actual, expected in zip(case.products(), case.expected(), strict=True):
        check(actual, expected, 100)


@pytest.mark.parametrize("bad", [-1, 10**15, -(2**62)])
@pytest.mark.parametrize("batch", [1, 2, 8, 40])
@pytest.mark.parametrize("size", [(20, 30), (400, 300)])
def test_a_row_pointer_outside_raises(size, batch, bad):
    case = Case(*size, batch, torch.float32)
    for row in (0, size[0] // 2, size[0]):
        good = case.crow[row].item()
        case.crow[row] = bad
        check_all_raise(case, "`crow_indices` must rise from 0 to nnz")
        case.crow[row] = good


def test_a_matrix_without_columns_or_rows():
    crow, col = torch.tensor([0, 1]), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"outside \[0, in_features\) = \[0, 0\)"):
        ops.spmm(torch.ones(2, 0), crow, col, torch.ones(1))
    none = torch.zeros(1, dtype=torch.int64)
    empty = torch.empty(0, dtype=torch.int32)
    assert ops.spmm(torch.ones(2, 3), none, empty, torch.empty(0)).shape == (2, 0)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: ops.spmm(c.x, c.crow, c.col, c.values.double()), "`values` must have dtype"),
        (lambda c: ops.spmm(c.x.int(), c.crow, c.col, c.values), "`input` must be float32"),
        (lambda c: ops.spmm(c.x, c.crow, c.col, c.values, c.bias[1:]), "`bias` must have size"),
        (lambda c: ops.sddmm(c.dy[1:], c.x, c.crow, c.col), "`grad_output` must have size"),
        (lambda c: ops.sddmm(c.dy, c.x.double(), c.crow, c.col), "`input` must have dtype"),
        (lambda c: ops.spmm(c.x[0], c.crow, c.col, c.values), "`input` must have 2 dim"),
    ],
)
def test_operands_that_do_not_fit(call, text):
    with pytest.raises(ValueError, match=text):
        call(Case(5, 6, 4, torch.float32))


LARGE = [(700, 900, 1), (700, 900, 2), (3000, 2500, 2), (700, 900, 33), (700, 900, 100),
         (300, 400, 700), (4000, 300, 300), (60, 9000, 40), (100_000, 300, 64),
         (50_000, 40_000, 2)]  # fmt: skip


@pytest.mark.parametrize("size", LARGE, ids=str)
def test_the_bits_do_not_depend_on_the_number_of_threads(size):
    out, in_, batch = size
    layer = tts.TrulySparseLinear(
        in_, out, nnz=min(out * in_ // 5, 400_000), generator=torch.Generator().manual_seed(1)
    )
    g = torch.Generator().manual_seed(2)
    x, dy = torch.randn(batch, in_, generator=g), torch.randn(batch, out, generator=g)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone().requires_grad_()
            layer.zero_grad()
            y = layer(leaf)
            y.backward(dy)
            orders = layer._derived.of(layer.indices)
            scattered = ops.spmm_transposed(dy, *orders[:2], layer.values.detach(), in_)
            results.append((y, leaf.grad, layer.values.grad, layer.bias.grad, scattered))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("batch", [3, 40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_layer_of_float32_weights_takes_half_precision_activations(dtype, batch):
    layer = tts.TrulySparseLinear(30, 20, density=0.3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(batch, 30, generator=torch.Generator().manual_seed(1)).to(dtype)
    x.requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, layer.values.grad.dtype) == (dtype, dtype, torch.float32)
    assert layer.bias.grad.dtype == torch.float32
    wide = x.detach().double().requires_grad_()
    reference = layer.to_dense().double()
    reference(wide).sum().backward()
    check(y, reference(wide).detach(), 30)
    check(x.grad, wide.grad, 20)
    rows, cols = layer.indices.long()
    check(layer.values.grad, reference.weight.grad[rows, cols], batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batch", [3, 40])
def test_registration(dtype, batch):
    case = Case(9, 7, batch, dtype)
    operators = torch.ops.torch_truly_sparse
    matrix = (case.crow, case.col, case.values)
    for operator, arguments in (
        (operators.spmm, (case.x, *matrix, case.bias)),
        (operators.spmm, (case.x, *matrix)),
        (operators.spmm_transposed, (case.dy, *matrix, 7)),
        (operators.spmm_transposed, (case.dy, *matrix, 7, *case.order)),
        (operators.sddmm, (case.dy, case.x, case.crow, case.col)),
        (operators.column_sum, (case.dy,)),
    ):
        torch.library.opcheck(operator.default, arguments)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("batch", [3, 18])
def test_gradients_of_any_order(batch, ordered):
    case = Case(5, 6, batch, torch.float64)
    orders = differentiable.Orders(case.crow, case.col, 6, case.order if ordered else None)
    x, values, bias = (t.clone().requires_grad_() for t in (case.x, case.values, case.bias))

    def product(x, values, bias):
        return differentiable.spmm(x, values, bias, orders)

    assert torch.autograd.gradcheck(product, (x, values, bias))
    assert torch.autograd.gradgradcheck(product, (x, values, bias))


# Run in a process of its own for each instruction set.
_PROGRAM = """
import sys, torch
sys.path.insert(0, {tests!r})
import torch_truly_sparse as tts
from test_kernels import BATCHES, DTYPES, Case, check
assert tts.active_isa() == {isa!r}
results = []
for dtype in DTYPES:
    for batch in BATCHES:
        case = Case(70, 130, batch, dtype)
        for actual, expected in zip(case.products(), case.expected()):
            check(actual, expected, 130)
            results.append(actual)
torch.save(results, sys.argv[1])
"""


def _run_isa(isa, path):
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(isa=isa, tests=str(Path(__file__).parent)), path],
        env={**os.environ, "TORCH_TRULY_SPARSE_ISA": isa},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("isa", ["avx2", "avx512", "neon"])
def test_every_instruction_set_agrees_with_scalar(isa, tmp_path):
    wide = _run_isa(isa, str(tmp_path / "wide.pt"))
    if "lacks these instructions" in wide.stderr or "not an instruction set" in wide.stderr:
        pytest.skip(f"this CPU has no {isa}")
    assert wide.returncode == 0, wide.stderr
    scalar = _run_isa("scalar", str(tmp_path / "scalar.pt"))
    assert scalar.returncode == 0, scalar.stderr
    pairs = zip(torch.load(tmp_path / "scalar.pt"), torch.load(tmp_path / "wide.pt"), strict=True)
    for a, b in pairs:
        check(b, a.double(), 130)


def test_an_unknown_instruction_set_is_refused():
    result = _run_isa("sse9", "unused")
    assert result.returncode != 0
    assert "TORCH_TRULY_SPARSE_ISA=sse9 is not an instruction set" in result.stderr
