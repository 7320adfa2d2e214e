"""A truly sparse layer computes what the dense one does."""

from __future__ import annotations

import pytest
import torch
from oracles import (
    MASKS,
    VALUE_DTYPES,
    OperatorLog,
    random_mask,
    same_bits,
    valid_topology,
)
from small_layers import of_mask, seeded, small

from torch_truly_sparse import TrulySparseLinear

# nn.Linear says so of itself, as the tests convert layers that have no inputs.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
each_value_dtype = pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
LEADING = [(), (1,), (4,), (0,), (2, 3), (2, 0, 3), (1, 2, 1, 5)]


# Forward and backward


@each_mask
@each_value_dtype
@pytest.mark.parametrize("bias", [True, False])
def test_forward_and_backward_equal_those_of_the_dense_layer(mask, dtype, bias):
    layer = of_mask(mask, dtype, bias=bias)
    dense = layer.to_dense()
    for leading in LEADING:
        x = torch.randn(*leading, mask.shape[1], dtype=dtype, requires_grad=True)
        twin = x.detach().clone().requires_grad_()
        y, expected = layer(x), dense(twin)
        torch.testing.assert_close(y, expected)
        assert y.is_contiguous()
        g = torch.randn_like(y)
        layer.zero_grad()
        dense.zero_grad()
        y.backward(g)
        expected.backward(g)
        torch.testing.assert_close(x.grad, twin.grad)
        torch.testing.assert_close(layer.values.grad, dense.weight.grad[mask])
        if bias:
            torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


def test_gradients_accumulate_over_uses_and_over_backward_passes():
    layer, x = of_mask(random_mask(6, 6, 20), torch.float64), torch.randn(4, 6).double()
    dense = layer.to_dense()
    for _ in range(2):
        layer(layer(x).tanh()).sum().backward()
        dense(dense(x).tanh()).sum().backward()
    torch.testing.assert_close(layer.values.grad, dense.weight.grad[dense.weight != 0])
    torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


def test_gradients_are_no_view_of_the_values():
    layer = small()
    values = layer.values.detach().clone()
    layer(torch.randn(4, 9)).sum().backward()
    layer.values.grad.fill_(7)
    assert same_bits(layer.values, values)


@pytest.mark.parametrize("frozen", ["values", "bias"])
def test_frozen_parameters_get_no_gradient(frozen):
    layer = small()
    getattr(layer, frozen).requires_grad_(False)
    layer(torch.randn(4, 9)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad is None) == (name == frozen)


def test_a_first_layer_never_builds_the_transposed_order():
    layer = small()
    with OperatorLog() as ran:
        layer(torch.randn(4, 9)).sum().backward()
        with torch.no_grad():
            layer(torch.randn(4, 9, requires_grad=True))
    assert "transpose" not in ran.names


def test_what_a_topology_needs_is_derived_once():
    layer = small()
    with OperatorLog() as ran:
        for batch in 4, 20, 20, 20:  # up to 16 samples do without the transposed order
            layer(torch.randn(batch, 9, requires_grad=True)).sum().backward()
    assert ran.names.count("transpose") == 1
    assert "compress" not in ran.names


@pytest.mark.parametrize(
    ("input", "error", "text"),
    [
        (torch.ones(3, 8), ValueError, r"`input` must have 9 features \(in_features\), got 8"),
        (torch.ones(()), ValueError, r"`input` must have 9 features \(in_features\), got a scalar"),
        (
            torch.ones(3, 9).double(),
            TypeError,
            r"`input.to\(torch.float32\)` or .*layer.to\(torch.f",
        ),
        (torch.ones(3, 9).long(), TypeError, "must share one dtype, got torch.int64"),
        ([[1.0] * 9], TypeError, "`input` must be a torch.Tensor, got list"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(input, error, text):
    with pytest.raises(error, match=text):
        small()(input)


# Sizes


def test_density_is_nnz_over_all_connections():
    layer = TrulySparseLinear(784, 300, density=0.05)
    assert layer.nnz == layer.indices.shape[1] == layer.values.shape[0] == 11_760
    assert layer.density == 0.05
    assert TrulySparseLinear(784, 300, epsilon=20).nnz == 21_680
    assert TrulySparseLinear(784, 300, nnz=7).density == 7 / (784 * 300)
    assert TrulySparseLinear(0, 5, nnz=0).density == 0


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        ((9, 6), {}, TypeError, "exactly one of"),
        ((9, 6), {"density": 0.1, "nnz": 2}, TypeError, "exactly one of"),
        ((9, 6), {"nnz": 55}, ValueError, r"\[0, 54\], got 55"),
        ((-9, 6), {"nnz": 0}, ValueError, "`in_features` must not be negative, got -9"),
        ((9, -6), {"nnz": 0}, ValueError, "`out_features` must not be negative, got -6"),
        ((9.0, 6), {"nnz": 0}, TypeError, "`in_features` must be an int, got float"),
        ((9, True), {"nnz": 0}, TypeError, "`out_features` must be an int, got bool"),
        ((9, 6), {"nnz": 1, "init": "he"}, ValueError, "`init` must be one of he_uniform, .* 'he'"),
        ((9, 6), {"nnz": 1, "init": 3}, TypeError, "object with a method `draw`, got int"),
        ((9, 6), {"nnz": 1, "generator": 3}, TypeError, "`generator` must be a torch.Generator"),
        ((9, 6), {"nnz": 1, "dtype": torch.int32}, TypeError, "`dtype` must be float32 or float64"),
        ((2**32, 2**31), {"nnz": 1}, ValueError, r"must stay below 2\*\*62"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, options, error, text):
    with pytest.raises(error, match=text):
        TrulySparseLinear(*arguments, **options)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_dtypes_that_no_kernel_computes_are_refused_at_construction(half):
    with pytest.raises(TypeError, match="float32 or float64"):
        TrulySparseLinear(9, 6, nnz=20, dtype=half)


def test_a_layer_of_a_million_by_a_million_takes_memory_for_its_connections_alone():
    layer = TrulySparseLinear(10**6, 10**6, nnz=1000, bias=False)
    x = torch.ones(1, 10**6, requires_grad=True)
    y = layer(x)
    # Each row's sum, and each column's, from the coordinates.
    rows, columns = layer.indices.long()
    sums = torch.zeros(10**6).index_add_(0, rows, layer.values.detach())
    torch.testing.assert_close(y.detach()[0], sums)
    y.sum().backward()
    sums = torch.zeros(10**6).index_add_(0, columns, layer.values.detach())
    torch.testing.assert_close(x.grad[0], sums)


def test_sizes_beyond_32_bits_have_64_bit_indices():
    layer = TrulySparseLinear(2**31 + 5, 3, nnz=100, generator=seeded())
    assert layer.indices.dtype == torch.int64
    assert valid_topology(layer.indices, 3, 2**31 + 5)
    assert layer.indices[1].max() > 2**29
    other = TrulySparseLinear(2**31 + 5, 3, nnz=50)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.indices, layer.indices)


def test_default_dtype_and_device_are_followed():
    torch.set_default_dtype(torch.float64)
    try:
        assert TrulySparseLinear(9, 6, nnz=20).values.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.device("meta"):
        assert TrulySparseLinear(9, 6, nnz=20).values.is_meta


def test_a_device_that_is_given_wins_over_the_default_one():
    with torch.device("meta"):
        layer = TrulySparseLinear(9, 6, nnz=20, device="cpu")
    assert layer(torch.ones(2, 9)).shape == (2, 6)


def test_repr_tells_sizes_and_density():
    text = (
        "TrulySparseLinear(in_features=784, out_features=300, nnz=11760, density=0.05, bias=True)"
    )
    assert repr(TrulySparseLinear(784, 300, density=0.05)) == text
