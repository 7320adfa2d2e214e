"""What the table of operators does not say of the products: identities, special numbers, order."""

from __future__ import annotations

import pytest
import torch
from oracles import MASKS, Matrix, random_mask, same_bits

import torch_truly_sparse as tts
from torch_truly_sparse._library import operators

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


@each_mask
@pytest.mark.parametrize("batch", [1, 7, 33])
def test_transposed_product_is_the_adjoint(mask, batch):
    w = Matrix.of_mask(mask, torch.float64)
    x = torch.randn(batch, mask.shape[1], dtype=torch.float64)
    g = torch.randn(batch, mask.shape[0], dtype=torch.float64)
    forward = (operators.spmm(x, w.crow, w.col, w.values) * g).sum()
    order = w.ccol, w.row, w.permutation
    transposed = operators.spmm_transposed(g, w.crow, w.col, w.values, mask.shape[1], *order)
    adjoint = (x * transposed).sum()
    # <Wx, g> is linear in W, too: its gradient there is what sddmm computes.
    by_values = (w.values * operators.sddmm(g, x, w.crow, w.col)).sum()
    torch.testing.assert_close(forward, adjoint, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(forward, by_values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("stored", "summed"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
    ids=str,
)
def test_activations_keep_their_dtype_and_sums_have_that_of_the_weights(stored, summed):
    w = Matrix.of_mask(random_mask(6, 9, 20), summed)
    x, dy = torch.randn(3, 9).to(stored), torch.randn(3, 6).to(stored)
    matrix = w.crow, w.col, w.values
    assert operators.spmm(x, *matrix).dtype == stored
    assert operators.spmm_transposed(dy, *matrix, 9).dtype == stored
    assert operators.sddmm(dy, x, w.crow, w.col).dtype == summed
    assert operators.column_sum(dy).dtype == summed
    gradients = operators.spmm_backward(dy, x, *matrix, True, True)
    assert [g.dtype for g in gradients] == [stored, summed, summed]


def test_column_sum_adds_sample_after_sample():
    dy = torch.randn(100, 70)
    expected = torch.zeros(70)
    for sample in dy:
        expected = expected + sample
    assert same_bits(operators.column_sum(dy), expected)


@pytest.mark.parametrize("nonfinite", [float("nan"), float("inf")])
@pytest.mark.parametrize("batch", [1, 3, 17])
def test_nonfinite_inputs_reach_exactly_the_units_connected_to_them(nonfinite, batch):
    mask = random_mask(12, 10, 40)
    w = Matrix.of_mask(mask)
    x = torch.randn(batch, 10)
    x[-1, 4] = nonfinite
    y = operators.spmm(x, w.crow, w.col, w.values)
    assert y[:-1].isfinite().all()
    assert torch.equal(~y[-1].isfinite(), mask[:, 4])


def test_no_nonzeros_at_all_leave_exactly_the_bias_and_zeros():
    crow, col = torch.zeros(4, dtype=torch.int64), torch.empty(0, dtype=torch.int32)
    matrix = crow, col, torch.empty(0)
    bias = torch.arange(3.0)
    assert torch.equal(operators.spmm(torch.ones(5, 7), *matrix, bias), bias.expand(5, 3))
    order = operators.transpose(crow, col, 7)
    for batch in (5, 40):
        for transposed in ((), order):
            dx = operators.spmm_transposed(torch.ones(batch, 3), *matrix, 7, *transposed)
            assert torch.equal(dx, torch.zeros(batch, 7))
    assert operators.sddmm(torch.ones(5, 3), torch.ones(5, 7), crow, col).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_rounds_as_torch_does(dtype):
    # One weight of 1: the output is the input, so only the conversions are left. Every bit
    # pattern goes in; what is finite, infinite or zero must come back as it was, NaN as NaN, and
    # zero for what is denormal in float32, in which the products are computed.
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = patterns.reshape(-1, 64)
    crow, col = torch.arange(65), torch.arange(64, dtype=torch.int32)
    y = operators.spmm(x, crow, col, torch.ones(64))
    assert torch.equal(y.isnan(), x.isnan())
    known = ~x.isnan()
    denormal = x.float().abs() < torch.finfo(torch.float32).tiny
    assert torch.equal(y[known], x.masked_fill(denormal, 0)[known])
    # A bias makes a float32 number of any size: it must be rounded once, to nearest even.
    g = torch.Generator().manual_seed(0)
    bias = torch.randn(64, generator=g) * torch.logspace(-9, 6, 64)
    bias[:3] = torch.tensor([65519.0, 65520.0, -1e30])
    y = operators.spmm(torch.zeros(33, 64, dtype=dtype), crow, col, torch.ones(64), bias)
    assert torch.equal(y, bias.to(dtype).expand(33, 64))


@pytest.mark.parametrize("left", [0, 8])
@pytest.mark.parametrize("part", ["input", "values", "col_indices", "crow_indices", "bias"])
def test_memory_that_somebody_took_away_is_refused(part, left):
    w = Matrix.of_mask(random_mask(12, 10, 40))
    arguments = {
        "input": torch.randn(3, 10),
        "crow_indices": w.crow.clone(),
        "col_indices": w.col.clone(),
        "values": w.values.clone(),
        "bias": torch.randn(12),
    }
    expected = operators.spmm(**arguments)
    taken = arguments[part].untyped_storage()
    kept, size = arguments[part].clone(), taken.nbytes()
    taken.resize_(left)
    with pytest.raises(ValueError, match=f"`{part}` has lost its memory: its storage holds {left}"):
        operators.spmm(**arguments)
    taken.resize_(size)
    arguments[part].copy_(kept)
    assert same_bits(operators.spmm(**arguments), expected)


def test_a_layer_whose_weights_are_elsewhere_is_refused_until_they_are_back():
    layer = tts.TrulySparseLinear(10, 12, nnz=40)
    x = torch.randn(20, 10, requires_grad=True)
    expected = layer(x)
    kept, storage = layer.values.detach().clone(), layer.values.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    with pytest.raises(ValueError, match="`values` has lost its memory"):
        layer(x)
    with pytest.raises(ValueError, match="`values` has lost its memory"):
        expected.sum().backward()
    storage.resize_(size)
    layer.values.data.copy_(kept)
    assert same_bits(layer(x), expected)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation.*:UserWarning")
@pytest.mark.parametrize(
    "change",
    [lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), lambda t: t.to_sparse()],
    ids=["quantized", "sparse"],
)
def test_tensors_of_other_kinds_are_refused(change):
    w = Matrix.of_mask(random_mask(12, 10, 40))
    with pytest.raises(TypeError, match=r"must be ordinary dense tensors, got a .* one"):
        operators.spmm(change(torch.randn(3, 10)), w.crow, w.col, w.values)
