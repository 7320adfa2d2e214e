from __future__ import annotations

import copy
import math

import pytest
import torch
from oracles import (
    INDEX_DTYPES,
    MASKS,
    VALUE_DTYPES,
    OperatorLog,
    random_mask,
    same_bits,
    valid_topology,
)
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear, ops
from torch_truly_sparse.topology import random_indices

# nn.Linear says so of itself, as the tests convert layers that have no inputs.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
each_value_dtype = pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
LEADING = [(), (1,), (4,), (0,), (2, 3), (2, 0, 3), (1, 2, 1, 5)]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_mask(mask: Tensor, dtype: torch.dtype = torch.float32, **options) -> TrulySparseLinear:
    """A layer with these connections, and weights and bias that are not 0."""
    out_features, in_features = mask.shape
    layer = TrulySparseLinear(
        in_features, out_features, nnz=int(mask.sum()), dtype=dtype, **options
    )
    layer.indices = mask.nonzero().t()
    nn.init.normal_(layer.values)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def small(**options) -> TrulySparseLinear:
    return of_mask(random_mask(6, 9, 20), **options)


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


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_forward_in_half_precision_says_what_is_possible(half):
    with pytest.raises((TypeError, ValueError), match="must be float32 or float64"):
        small().to(half)(torch.ones(3, 9, dtype=half))


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


# Weight, to_dense, from_dense


@each_mask
def test_weight_is_a_coalesced_sparse_tensor_of_the_dense_weight(mask):
    layer = of_mask(mask)
    assert layer.weight.is_coalesced()
    assert layer.weight.shape == mask.shape
    with torch.sparse.check_sparse_tensor_invariants():
        assert torch.equal(layer.weight.to_dense(), layer.to_dense().weight)


def test_gradients_flow_through_weight_to_values():
    layer = small()
    penalty = torch.sparse.sum(layer.weight * layer.weight)
    penalty.backward()
    torch.testing.assert_close(layer.values.grad, 2 * layer.values.detach())


@each_mask
def test_to_dense_and_back_changes_nothing(mask):
    layer = of_mask(mask, torch.float64)
    dense = layer.to_dense()
    assert torch.equal(dense.weight != 0, mask)
    back = TrulySparseLinear.from_dense(dense, mask=mask)
    assert torch.equal(back.indices, layer.indices)
    assert same_bits(back.values, layer.values)
    assert same_bits(back.bias, layer.bias)


def test_to_dense_leaves_the_global_generator_alone():
    layer = small()
    before = torch.get_rng_state()
    layer.to_dense()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("density", [0, 0.01, 0.1, 0.5, 0.77, 1])
def test_from_dense_keeps_the_largest_magnitudes(density):
    linear = nn.Linear(13, 7)
    layer = TrulySparseLinear.from_dense(linear, density=density)
    magnitudes = linear.weight.detach().abs()
    assert layer.nnz == round(density * 91)
    assert valid_topology(layer.indices, 7, 13)
    kept = torch.zeros(7, 13, dtype=torch.bool)
    kept[layer.indices[0].long(), layer.indices[1].long()] = True
    assert torch.equal(layer.values.detach(), linear.weight.detach()[kept])
    if 0 < layer.nnz < 91:
        assert magnitudes[kept].min() >= magnitudes[~kept].max()
    assert same_bits(layer.bias, linear.bias)


@pytest.mark.parametrize("nnz", [0, 1, 3, 6])
def test_from_dense_counts_exactly_where_magnitudes_tie(nnz):
    linear = nn.Linear(3, 2, bias=False)
    nn.init.constant_(linear.weight, -0.5)
    layer = TrulySparseLinear.from_dense(linear, density=nnz / 6)
    assert layer.nnz == nnz
    assert valid_topology(layer.indices, 2, 3)


def test_from_dense_copies():
    linear = nn.Linear(13, 7)
    layer = TrulySparseLinear.from_dense(linear, density=0.5)
    before = linear.weight.detach().clone()
    nn.init.zeros_(layer.values)
    nn.init.ones_(layer.bias)
    assert same_bits(linear.weight, before)
    assert not (linear.bias == 1).any()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("flags", [(True, False), (False, True)])
@each_value_dtype
def test_conversions_keep_mode_flags_and_dtype(training, flags, dtype):
    linear = nn.Linear(13, 7, dtype=dtype).train(training)
    linear.weight.requires_grad_(flags[0])
    linear.bias.requires_grad_(flags[1])
    layer = TrulySparseLinear.from_dense(linear, density=0.5)
    dense = layer.to_dense()
    for module, weight in (layer, layer.values), (dense, dense.weight):
        assert module.training == training
        assert (weight.requires_grad, module.bias.requires_grad) == flags
        assert weight.dtype == module.bias.dtype == dtype
    assert TrulySparseLinear.from_dense(nn.Linear(3, 2, bias=False), density=1).bias is None


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "exactly one of `density` and `mask`"),
        ({"density": 0.5, "mask": torch.ones(2, 3).bool()}, TypeError, "exactly one of"),
        ({"density": 1.5}, ValueError, r"`density` must lie in \[0, 1\], got 1.5"),
        ({"mask": torch.ones(2, 3)}, TypeError, "`mask` must be a bool tensor, got torch.float32"),
        ({"mask": [[True]]}, TypeError, "`mask` must be a bool tensor, got list"),
        (
            {"mask": torch.ones(3, 2).bool()},
            ValueError,
            r"shape of the weight \(2, 3\), got \(3, 2",
        ),
    ],
)
def test_from_dense_refuses_what_it_cannot_follow(arguments, error, text):
    with pytest.raises(error, match=text):
        TrulySparseLinear.from_dense(nn.Linear(3, 2), **arguments)


def test_from_dense_wants_a_linear_layer():
    with pytest.raises(TypeError, match=r"`linear` must be an nn.Linear, got Conv1d"):
        TrulySparseLinear.from_dense(nn.Conv1d(1, 1, 1), density=0.5)


# Initial weights


def _unequal_rows() -> Tensor:
    """30 units of 400 connections, 300 of 40, 3000 of 4: 12,000 weights each."""
    fan_in = torch.tensor([400] * 30 + [40] * 300 + [4] * 3000)
    rows = torch.repeat_interleave(fan_in)
    columns = torch.cat([torch.randperm(400)[:n].sort().values for n in fan_in.tolist()])
    return torch.stack([rows, columns])


def _initialised(init: str) -> tuple[Tensor, Tensor]:
    layer = TrulySparseLinear(400, 3330, nnz=36_000, init=init)
    layer.indices = _unequal_rows()
    layer.reset_parameters(generator=seeded())
    assert (layer.bias == 0).all()
    return layer.indices.long(), layer.values.detach()


def _assert_uniform(values: Tensor, bounds: Tensor) -> None:
    relative = (values / bounds).double()
    n = len(values)
    assert relative.abs().max() <= 1 + 1e-6
    assert relative.abs().max() > 1 - 20 / n
    # Uniform in [-1, 1]: variance 1/3, and that of a squared entry 4/45.
    assert abs(relative.mean().item()) < 5 * (1 / 3 / n) ** 0.5
    assert abs(relative.square().mean().item() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5


def test_he_uniform_scales_with_the_fan_in_that_each_unit_has():
    (rows, _), values = _initialised("he_uniform")
    fan_in = torch.bincount(rows)[rows]
    for fan in 400, 40, 4:
        _assert_uniform(values[fan_in == fan], torch.tensor(math.sqrt(6 / fan)))


def test_xavier_uniform_scales_with_both_fans_that_the_units_have():
    (rows, columns), values = _initialised("xavier_uniform")
    fans = torch.bincount(rows)[rows] + torch.bincount(columns)[columns]
    bounds = (6 / fans).sqrt()
    for fan in 400, 40, 4:
        units = torch.bincount(rows)[rows] == fan
        _assert_uniform(values[units], bounds[units])


def test_set_normal_has_deviation_a_tenth_and_zeros_are_zero():
    _, values = _initialised("set_normal")
    n = len(values)
    assert abs(values.mean().item()) < 5 * 0.1 / n**0.5
    assert abs(values.var().item() / 0.01 - 1) < 5 * (2 / n) ** 0.5
    # The fourth moment tells a normal distribution from a uniform one: 3, not 1.8.
    assert abs((values / 0.1).pow(4).mean().item() - 3) < 5 * (96 / n) ** 0.5
    assert (_initialised("zeros")[1] == 0).all()


def test_he_uniform_keeps_the_variance_of_activations_through_relu():
    mean_square = torch.randn(2000, 1000).square().mean().item()
    layers = [TrulySparseLinear(1000, 1000, density=0.03, bias=False) for _ in range(4)]
    x = torch.randn(500, 1000)
    with torch.no_grad():
        for layer in layers:
            x = layer(x).relu() * 1.0
    # After ReLU half the variance is gone and He's factor 2 has restored it beforehand.
    assert 0.5 * mean_square < x.square().mean().item() < 2 * mean_square


def test_an_initializer_of_ones_own_is_asked_for_every_weight():
    class Ramp:
        def draw(self, connections, indices, out_features, in_features, *, dtype, generator):
            assert torch.equal(connections, indices)
            assert (out_features, in_features) == (6, 9)
            return torch.arange(connections.shape[1], dtype=dtype)

    layer = TrulySparseLinear(9, 6, nnz=20, init=Ramp())
    assert torch.equal(layer.values.detach(), torch.arange(20.0))
    layer.reset_parameters("zeros")
    assert (layer.values == 0).all()


# Generators, resets, identity


def test_equal_generators_build_equal_layers_and_leave_the_global_one_alone():
    before = torch.get_rng_state()
    layers = [TrulySparseLinear(30, 40, density=0.1, generator=seeded(s)) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(layers[0].indices, layers[1].indices)
    assert same_bits(layers[0].values, layers[1].values)
    assert not torch.equal(layers[0].indices, layers[2].indices)


def test_without_a_generator_the_global_seed_decides():
    layers = []
    for _ in range(2):
        torch.manual_seed(11)
        layers.append(TrulySparseLinear(30, 40, density=0.1))
    assert torch.equal(layers[0].indices, layers[1].indices)
    assert same_bits(layers[0].values, layers[1].values)


def test_resets_are_in_place_and_repeat_the_construction():
    layer = TrulySparseLinear(30, 40, density=0.1, generator=seeded())
    start = layer.indices.clone(), layer.values.detach().clone()
    kept = layer.values, layer.bias, layer.values.data_ptr(), layer.indices
    nn.init.ones_(layer.bias)
    layer.reset_topology(generator=seeded(5))
    assert not torch.equal(layer.indices, start[0])
    layer.reset_topology(generator=seeded())
    assert torch.equal(layer.indices, start[0])
    assert same_bits(layer.values, start[1])
    assert (layer.bias == 0).all()
    layer.reset_parameters(generator=seeded(6))
    assert torch.equal(layer.indices, start[0])
    assert not torch.equal(layer.values, start[1])
    assert layer.values is kept[0]
    assert layer.bias is kept[1]
    assert layer.values.data_ptr() == kept[2]
    assert layer.indices is kept[3]


def test_results_follow_a_reset_topology():
    layer, x = small(), torch.randn(4, 9, requires_grad=True)
    layer(x).sum().backward()
    layer.reset_topology()
    torch.testing.assert_close(layer(x), layer.to_dense()(x))


@pytest.mark.parametrize("how", ["reset", "assign", "load"])
def test_a_topology_changed_in_inference_mode_can_be_trained(how):
    layer, other = small(), TrulySparseLinear(9, 6, nnz=25 if how == "load" else 20)
    with torch.inference_mode():
        if how == "reset":
            layer.reset_topology()
        elif how == "assign":
            layer.indices = other.indices
        else:
            layer.load_state_dict(other.state_dict())
    layer(torch.randn(4, 9, requires_grad=True)).sum().backward()


# The topology as the user sees and changes it


def _assert_follows(layer: TrulySparseLinear) -> None:
    """Forward, both gradients and the row pointers belong to the indices of now."""
    x = torch.randn(5, layer.in_features, dtype=layer.values.dtype, requires_grad=True)
    twin, dense = x.detach().clone().requires_grad_(), layer.to_dense()
    layer.zero_grad()
    torch.testing.assert_close(layer(x), dense(twin))
    layer(x).square().sum().backward()
    dense(twin).square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    rows, columns = layer.indices.long()
    torch.testing.assert_close(layer.values.grad, dense.weight.grad[rows, columns])
    expected = ops.compress(layer.indices, layer.out_features, layer.in_features)
    assert torch.equal(layer.crow_indices, expected)


def _other(layer: TrulySparseLinear, seed: int = 9) -> Tensor:
    size = layer.out_features, layer.in_features
    return random_indices(*size, layer.nnz, generator=seeded(seed))


@pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)
def test_an_assigned_topology_is_followed_and_is_a_copy(dtype):
    layer = small()
    _assert_follows(layer)
    given = _other(layer).to(dtype)
    layer.indices = given
    assert torch.equal(layer.indices, given)
    assert layer.indices.dtype == torch.int32
    _assert_follows(layer)
    kept = layer.indices.clone()
    given.zero_()
    assert torch.equal(layer.indices, kept)
    assert "indices" in dict(layer.named_buffers())


def test_assigning_the_own_topology_changes_nothing():
    layer = small()
    before = layer.indices.clone()
    layer.indices = layer.indices
    assert torch.equal(layer.indices, before)
    _assert_follows(layer)


@pytest.mark.parametrize("write", ["copy", "inference", "view"])
def test_a_valid_change_in_place_is_followed(write):
    layer = small()
    _assert_follows(layer)
    given = _other(layer)
    if write == "inference":
        with torch.inference_mode():
            layer.indices.copy_(given)
    elif write == "view":
        layer.indices.view(-1)[:] = given.flatten()
    else:
        layer.indices.copy_(given)
    _assert_follows(layer)


@pytest.mark.parametrize("use", [lambda layer: layer(torch.ones(1, 9)), lambda layer: layer.weight,
                                 lambda layer: layer.to_dense()])  # fmt: skip
def test_an_invalid_change_in_place_is_refused_at_the_next_use(use):
    for position, offence in [((0, 0), 6), ((1, -1), -1), ((0, 0), 5)]:
        layer = small()
        layer.indices[position] = offence
        for _ in range(2):
            with pytest.raises(ValueError, match="`indices"):
                use(layer)
        layer.indices = _other(layer)
        _assert_follows(layer)


@pytest.mark.parametrize(
    ("indices", "error", "text"),
    [
        (torch.zeros(2, 19).long(), ValueError, "must be unique"),
        (torch.arange(6).expand(2, 6), ValueError, "must hold 20 connections, .* got 6"),
        (None, TypeError, "got NoneType"),
        (torch.zeros(2, 20), TypeError, "int32 or int64, got torch.float32"),
    ],
)
def test_an_assigned_topology_that_does_not_fit_changes_nothing(indices, error, text):
    layer = small()
    before, x = layer.indices.clone(), torch.randn(2, 9)
    y = layer(x)
    for assign in (
        lambda: setattr(layer, "indices", indices),
        lambda: layer.replace_topology(indices),
    ):
        with pytest.raises(error, match=text):
            assign()
        assert torch.equal(layer.indices, before)
        assert same_bits(layer(x), y)


def test_values_of_another_length_are_refused():
    layer = small()
    layer.values = nn.Parameter(torch.ones(19))
    with pytest.raises(ValueError, match=r"`values` must have shape \(20,\)"):
        layer(torch.ones(2, 9))


# torch.func.functional_call


@pytest.mark.parametrize("nnz", [20, 31])
@pytest.mark.parametrize("dtype", INDEX_DTYPES, ids=str)
def test_a_call_with_other_indices_uses_them_once(nnz, dtype):
    layer, x = small(), torch.randn(4, 9, requires_grad=True)
    _assert_follows(layer)
    before, y = layer.indices, layer(x)
    other = of_mask(random_mask(6, 9, nnz, seed=1))
    lent = {"indices": other.indices.to(dtype), "values": other.values, "bias": other.bias}
    result = torch.func.functional_call(layer, lent, (x,))
    assert same_bits(result, other(x))
    (gradient,) = torch.autograd.grad(result.sum(), other.values)
    (expected,) = torch.autograd.grad(other(x).sum(), other.values)
    assert same_bits(gradient, expected)
    assert layer.indices is before
    assert same_bits(layer(x), y)
    _assert_follows(layer)


def test_a_call_with_other_values_uses_the_orders_that_are_there():
    layer, x = small(), torch.randn(4, 9, requires_grad=True)
    y = layer(x)
    with OperatorLog() as ran:
        lent = {"values": 2 * layer.values, "bias": 2 * layer.bias}
        doubled = torch.func.functional_call(layer, lent, (x,))
    assert ran.names == ["spmm"]
    assert same_bits(doubled, 2 * y)


def test_a_call_with_invalid_indices_is_refused_and_leaves_the_layer_as_it_was():
    layer, x = small(), torch.randn(4, 9)
    y = layer(x)
    with pytest.raises(ValueError, match="outside"):
        torch.func.functional_call(layer, {"indices": layer.indices + 9}, (x,))
    assert same_bits(layer(x), y)


def test_a_call_with_other_indices_leaves_the_layers_own_to_be_derived_once():
    layer, x = copy.deepcopy(small()), torch.randn(20, 9, requires_grad=True)
    torch.func.functional_call(layer, {"indices": _other(layer)}, (x,))
    layer(x)
    with OperatorLog() as ran:
        layer(x).sum().backward()
    assert "compress" not in ran.names
    assert "transpose" not in ran.names


# meta


def test_a_layer_made_on_meta_becomes_whole_by_reset_topology():
    layer = TrulySparseLinear(30, 40, density=0.1, device="meta")
    assert all(t.is_meta for t in layer.state_dict().values())
    assert layer(torch.ones(2, 30, device="meta")).shape == (2, 40)
    layer.to_empty(device="cpu")
    layer.reset_topology(generator=seeded())
    direct = TrulySparseLinear(30, 40, density=0.1, generator=seeded())
    assert torch.equal(layer.indices, direct.indices)
    assert same_bits(layer.values, direct.values)
    _assert_follows(layer)


@pytest.mark.parametrize("memory", [0, -1, 2**31 - 1])
@pytest.mark.parametrize("use", [lambda layer: layer(torch.ones(2, 30)), lambda layer: layer.weight,
                                 lambda layer: layer.to_dense()])  # fmt: skip
def test_an_emptied_layer_is_refused_until_it_is_reset(memory, use):
    layer = TrulySparseLinear(30, 40, density=0.1, device="meta").to_empty(device="cpu")
    layer.indices.fill_(memory)  # whatever the memory held
    with pytest.raises(ValueError, match="`indices"):
        use(layer)
    layer.reset_topology()
    _assert_follows(layer)


@pytest.mark.parametrize("memory", [0, -1, 41])
def test_parameters_of_an_emptied_layer_cannot_be_reset_without_a_topology(memory):
    layer = TrulySparseLinear(30, 40, density=0.1, device="meta").to_empty(device="cpu")
    layer.indices.fill_(memory)
    with pytest.raises(ValueError, match="`indices"):
        layer.reset_parameters()


def test_a_meta_layer_refuses_a_cpu_input():
    with pytest.raises((ValueError, RuntimeError), match=r"device|CPU|meta"):
        TrulySparseLinear(30, 40, density=0.1, device="meta")(torch.ones(2, 30))


# Dtypes


def test_conversion_keeps_parameters_the_same_objects_and_the_topology():
    layer = small()
    values, bias, indices = layer.values, layer.bias, layer.indices.clone()
    original = values.detach().clone()
    for convert in layer.double, lambda: layer.to(torch.float64):
        assert convert() is layer
        assert layer.values.dtype == layer.bias.dtype == torch.float64
        assert layer.values is values
        assert layer.bias is bias
        assert torch.equal(layer.indices, indices)
        assert layer.indices.dtype == torch.int32
        assert torch.equal(layer.values.detach(), original.double())
        _assert_follows(layer)
    layer.float()
    assert same_bits(layer.values, original)
    _assert_follows(layer)


def test_the_package_names_its_layer():
    assert tts.TrulySparseLinear is TrulySparseLinear
    assert isinstance(small(), tts.SparseLayer)
