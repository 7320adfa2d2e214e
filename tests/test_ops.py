from __future__ import annotations

import pytest
import torch
from oracles import (
    BATCHES,
    INDEX_DTYPES,
    LAYOUTS,
    MASKS,
    VALUE_DTYPES,
    Matrix,
    assert_product_close,
    layouts,
    random_mask,
    same_bits,
    spread,
)
from torch import Tensor

import torch_truly_sparse as tts
from torch_truly_sparse import ops
from torch_truly_sparse._library import operators
from torch_truly_sparse.ops.column_sum import column_sum_reference
from torch_truly_sparse.ops.compress import compress_reference
from torch_truly_sparse.ops.sddmm import sddmm_reference
from torch_truly_sparse.ops.spmm import spmm_reference
from torch_truly_sparse.ops.spmm_transposed import spmm_transposed_reference
from torch_truly_sparse.ops.transpose import transpose_reference

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
each_value_dtype = pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
each_index_dtype = pytest.mark.parametrize("index", INDEX_DTYPES, ids=str)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)
# Kernels are compiled once for each pair of dtypes; the plain-torch forms have one source for all.
compiled_and_reference = pytest.mark.parametrize(
    ("form", "dtype", "index"),
    [
        *(("compiled", dtype, index) for dtype in VALUE_DTYPES for index in INDEX_DTYPES),
        ("reference", torch.float64, torch.int32),
    ],
    ids=str,
)

SPMM = {"compiled": ops.spmm, "reference": spmm_reference}
SPMM_TRANSPOSED = {"compiled": operators.spmm_transposed, "reference": spmm_transposed_reference}
SDDMM = {"compiled": ops.sddmm, "reference": sddmm_reference}
COLUMN_SUM = {"compiled": ops.column_sum, "reference": column_sum_reference}
COMPRESS = {"compiled": ops.compress, "reference": compress_reference}
TRANSPOSE = {"compiled": ops.transpose, "reference": transpose_reference}


@each_mask
@compiled_and_reference
def test_products_equal_dense_ones(mask, form, dtype, index):
    w = Matrix.of_mask(mask, dtype, index)
    bias = torch.randn(mask.shape[0], dtype=dtype)
    for batch in BATCHES:
        x = torch.randn(batch, mask.shape[1], dtype=dtype)
        dy = torch.randn(batch, mask.shape[0], dtype=dtype)
        y = SPMM[form](x, w.crow, w.col, w.values)
        assert_product_close(y, x, w.dense.t())
        y = SPMM[form](x, w.crow, w.col, w.values, bias)
        assert_product_close(y, x, w.dense.t(), plus=bias)
        for order in (), (w.ccol, w.row, w.permutation):
            dx = SPMM_TRANSPOSED[form](dy, w.crow, w.col, w.values, mask.shape[1], *order)
            assert_product_close(dx, dy, w.dense)
        dw = SDDMM[form](dy, x, w.crow, w.col)
        assert_product_close(dw, dy.t(), x, at=mask)
        db = COLUMN_SUM[form](dy)
        assert_product_close(db, torch.ones(1, batch), dy, at=torch.ones(1, dy.shape[1]).bool())


@each_mask
@each_index_dtype
@pytest.mark.parametrize("form", ["compiled", "reference"])
def test_compress_counts_and_transpose_sorts(mask, index, form):
    w = Matrix.of_mask(mask, index=index)
    crow = COMPRESS[form](w.indices, *mask.shape)
    assert torch.equal(crow, w.crow)
    ccol, row, permutation = TRANSPOSE[form](crow, w.col, mask.shape[1])
    assert torch.equal(ccol, w.ccol)
    assert torch.equal(row, w.row)
    assert row.dtype == index
    assert torch.equal(permutation, w.permutation)
    assert permutation.dtype == index


@each_layout
@each_value_dtype
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_products_read_any_memory_layout(layout, dtype, batch):
    w = Matrix.of_mask(random_mask(6, 9, 20), dtype)
    x = layouts((batch, 9), dtype)[layout]
    dy = layouts((batch, 6), dtype)[layout]
    vectors = [spread(v) for v in (w.crow, w.col, w.values, torch.randn(6, dtype=dtype))]
    assert not any(v.is_contiguous() for v in vectors)
    crow, col, values, bias = vectors
    assert_product_close(ops.spmm(x, crow, col, values, bias), x, w.dense.t(), plus=bias)
    assert_product_close(ops.sddmm(dy, x, crow, col), dy.t(), x, at=w.dense != 0)
    assert same_bits(ops.column_sum(dy), ops.column_sum(dy.contiguous().clone()))
    order = spread(w.ccol), spread(w.row), spread(w.permutation)
    for transposed in None, ops.TransposedOrder(*order):
        dx = ops.spmm_transposed(dy, crow, col, values, 9, transposed)
        assert_product_close(dx, dy, w.dense)


@each_mask
@pytest.mark.parametrize("batch", [1, 7, 33])
def test_transposed_product_is_the_adjoint(mask, batch):
    w = Matrix.of_mask(mask, torch.float64)
    x = torch.randn(batch, mask.shape[1], dtype=torch.float64)
    g = torch.randn(batch, mask.shape[0], dtype=torch.float64)
    forward = (ops.spmm(x, w.crow, w.col, w.values) * g).sum()
    order = ops.TransposedOrder(w.ccol, w.row, w.permutation)
    adjoint = (x * ops.spmm_transposed(g, w.crow, w.col, w.values, mask.shape[1], order)).sum()
    # <Wx, g> is linear in W, too: its gradient there is what sddmm computes.
    by_values = (w.values * ops.sddmm(g, x, w.crow, w.col)).sum()
    torch.testing.assert_close(forward, adjoint, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(forward, by_values, rtol=1e-12, atol=1e-12)


def test_column_sum_adds_sample_after_sample():
    dy = torch.randn(100, 70)
    expected = torch.zeros(70)
    for sample in dy:
        expected = expected + sample
    assert same_bits(ops.column_sum(dy), expected)


@pytest.mark.parametrize("nonfinite", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_nonfinite_inputs_reach_exactly_the_units_connected_to_them(nonfinite, batch):
    mask = random_mask(12, 10, 40)
    w = Matrix.of_mask(mask)
    x = torch.randn(batch, 10)
    x[-1, 4] = nonfinite
    y = ops.spmm(x, w.crow, w.col, w.values)
    assert y[:-1].isfinite().all()
    assert torch.equal(~y[-1].isfinite(), mask[:, 4])


# Threads: big enough to be split, by (nnz + rows) x 16 samples >= 2**15 and by leaves of samples.


def _split_products() -> list[Tensor]:
    w = Matrix.of_mask(random_mask(300, 500, 20_000))
    tall = Matrix.of_mask(torch.arange(3000)[:, None] % 7 == torch.arange(20))
    results = []
    for matrix in w, tall:
        out_features, in_features = matrix.dense.shape
        for batch in 1, 8, 33:
            x, dy = torch.randn(batch, in_features), torch.randn(batch, out_features)
            results += [
                ops.spmm(x, matrix.crow, matrix.col, matrix.values, torch.randn(out_features)),
                *(
                    ops.spmm_transposed(
                        dy, matrix.crow, matrix.col, matrix.values, in_features, order
                    )
                    for order in (
                        None,
                        ops.TransposedOrder(matrix.ccol, matrix.row, matrix.permutation),
                    )
                ),
                ops.sddmm(dy, x, matrix.crow, matrix.col),
            ]
    results.append(ops.column_sum(torch.randn(200, 1000)))
    results.append(ops.compress(w.indices, 300, 500))
    results += ops.transpose(w.crow, w.col, 500)
    results += [ops.sample(10**9, 50_000, seed=3), ops.sample(60_000, 50_000, seed=3)]
    return results


def _built_layer() -> list[Tensor]:
    layer = tts.TrulySparseLinear(700, 600, nnz=30_000, generator=torch.Generator().manual_seed(1))
    return [layer.indices, layer.values]


def _trained_network() -> list[Tensor]:
    # 30,000 weights and 30 x 600 activations: torch itself runs such sizes in one thread.
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(
        tts.TrulySparseLinear(700, 600, nnz=30_000, generator=generator),
        torch.nn.ReLU(),
        tts.TrulySparseLinear(600, 500, nnz=10_000, generator=generator),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    x, target = torch.randn(30, 700), torch.randn(30, 500)
    for _ in range(3):
        optimizer.zero_grad()
        (model(x) - target).square().sum().backward()
        optimizer.step()
    return list(model.state_dict().values())


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("work", [_split_products, _built_layer, _trained_network])
def test_bits_do_not_depend_on_the_number_of_threads(work):
    results = []
    for threads in 1, 2, 5:
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        results.append(work())
    for other in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(results[0], other, strict=True))


# torch.library


def _arguments(
    batch: int, dtype: torch.dtype, index: torch.dtype
) -> dict[str, list[tuple[Tensor | int | None, ...]]]:
    w = Matrix.of_mask(random_mask(6, 9, 20), dtype, index)
    x, dy = torch.randn(batch, 9, dtype=dtype), torch.randn(batch, 6, dtype=dtype)
    bias = torch.randn(6, dtype=dtype)
    return {
        "spmm": [
            (x, w.crow, w.col, w.values),
            (x.t().contiguous().t(), w.crow, w.col, w.values, bias),
        ],
        "spmm_transposed": [
            (dy, w.crow, w.col, w.values, 9),
            (dy, w.crow, w.col, w.values, 9, w.ccol, w.row, w.permutation),
        ],
        "sddmm": [(dy, x, w.crow, w.col), (dy[:, :1].expand(-1, 6), x, w.crow, w.col)],
        "column_sum": [(dy,)],
        "spmm_backward": [
            (dy, x, w.crow, w.col, w.values, True, False),
            (dy, x, w.crow, w.col, w.values, True, True, w.ccol, w.row, w.permutation),
            (dy, x, w.crow, w.col, w.values, False, True),
        ],
        "compress": [(w.indices, 6, 9)],
        "transpose": [(w.crow, w.col, 9)],
    }


OPERATORS = [
    "spmm",
    "spmm_transposed",
    "sddmm",
    "column_sum",
    "spmm_backward",
    "compress",
    "transpose",
]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    ("batch", "dtype", "index"),
    [(3, torch.float32, torch.int32), (0, torch.float64, torch.int64)],
    ids=str,
)
def test_opcheck(name, batch, dtype, index):
    operator = getattr(torch.ops.torch_truly_sparse, name)
    for arguments in _arguments(batch, dtype, index)[name]:
        torch.library.opcheck(operator.default, arguments)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("batch", [0, 1, 5])
@each_value_dtype
@each_index_dtype
def test_meta_results_have_the_shape_and_dtype_of_real_ones(name, batch, dtype, index):
    operator = getattr(torch.ops.torch_truly_sparse, name)
    for arguments in _arguments(batch, dtype, index)[name]:
        real = operator(*arguments)
        meta = operator(*(a.to("meta") if isinstance(a, Tensor) else a for a in arguments))
        real, meta = ([r] if isinstance(r, Tensor) else r for r in (real, meta))
        for a, b in zip(real, meta, strict=True):
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())
            assert b.device.type == "meta"


def test_sample_on_meta_has_its_shape():
    with torch._subclasses.FakeTensorMode():
        assert ops.sample(100, 7, seed=0).shape == (7,)


# Errors


def _spmm(**changes: Tensor) -> Tensor:
    w = Matrix.of_mask(random_mask(6, 9, 20))
    arguments = {
        "input": torch.ones(2, 9),
        "crow_indices": w.crow,
        "col_indices": w.col,
        "values": w.values,
        "bias": torch.ones(6),
    }
    return ops.spmm(**{**arguments, **changes})


def dtypes(name: str, expected: str, given: str) -> str:
    return rf"`{name}` must have dtype torch\.{expected}, got torch\.{given}"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"input": torch.ones(9)}, r"`input` must have 2 dimension\(s\), got 1"),
        ({"input": torch.ones(2, 9).double()}, dtypes("values", "float64", "float32")),
        ({"values": torch.ones(20).double()}, dtypes("values", "float32", "float64")),
        ({"values": torch.ones(19)}, "`col_indices` must have size 19"),
        ({"bias": torch.ones(5)}, r"`bias` must have size 6 \(out_features\), got 5"),
        ({"bias": torch.ones(6).double()}, dtypes("bias", "float32", "float64")),
        ({"crow_indices": torch.zeros(7).int()}, dtypes("crow_indices", "int64", "int32")),
        ({"crow_indices": torch.zeros(0).long()}, "`crow_indices` must have one entry more"),
        ({"col_indices": torch.zeros(20).short()}, "`col_indices` must be int32 or int64"),
    ],
)
def test_spmm_names_the_argument_that_does_not_fit(changes, text):
    with pytest.raises(ValueError, match=text):
        _spmm(**changes)


def test_sddmm_and_spmm_transposed_name_the_argument_that_does_not_fit():
    w = Matrix.of_mask(random_mask(6, 9, 20))
    with pytest.raises(ValueError, match="`grad_output` must have size 2"):
        ops.sddmm(torch.ones(3, 6), torch.ones(2, 9), w.crow, w.col)
    with pytest.raises(ValueError, match="`grad_output` must have size 6"):
        ops.sddmm(torch.ones(2, 5), torch.ones(2, 9), w.crow, w.col)
    with pytest.raises(ValueError, match=dtypes("input", "float32", "float64")):
        ops.sddmm(torch.ones(2, 6), torch.ones(2, 9).double(), w.crow, w.col)
    dy, order = torch.ones(33, 6), ops.TransposedOrder(w.ccol, w.row, w.permutation)
    with pytest.raises(ValueError, match="`col_indices` must have size 19"):
        ops.spmm_transposed(dy, w.crow, w.col, torch.ones(19), 9)
    with pytest.raises(ValueError, match="`grad_output` must have size 6"):
        ops.spmm_transposed(dy[:, 1:], w.crow, w.col, w.values, 9)
    for argument, wrong, text in [
        ("permutation", w.permutation.long(), dtypes("permutation", "int32", "int64")),
        ("row_indices", w.row[1:], "`row_indices` must have size 20"),
        ("ccol_indices", w.ccol[1:], "`ccol_indices` must have size 10"),
    ]:
        with pytest.raises(ValueError, match=text):
            ops.spmm_transposed(dy, w.crow, w.col, w.values, 9, order._replace(**{argument: wrong}))


@pytest.mark.parametrize("crow", [[0, 0, 0], [2, 3, 4]])
def test_sddmm_refuses_row_pointers_that_leave_entries_out(crow):
    with pytest.raises(ValueError, match="`crow_indices` must rise from 0 to nnz = 6"):
        ops.sddmm(torch.ones(2, 2), torch.ones(2, 2), torch.tensor(crow), torch.tensor([0, 1] * 3))
