from __future__ import annotations

from itertools import product

import pytest
import torch
from oracles import MASKS, Matrix, OperatorLog, random_mask, same_bits
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from torch_truly_sparse import ops
from torch_truly_sparse.functional import sparse_linear
from torch_truly_sparse.ops import CsrParts
from torch_truly_sparse.ops.autograd import apply
from torch_truly_sparse.ops.gradients import ADJOINT, LINEAR, SAMPLE_SUM, SAMPLED

SHAPES = ["1x1-one", "1x9-typical", "9x1-all", "5x4-none", "5x4-typical", "5x4-holes", "5x4-all"]
EMPTY = ["0x3", "3x0", "0x0"]
each_shape = pytest.mark.parametrize("name", SHAPES + EMPTY)
each_batch = pytest.mark.parametrize("batch", [0, 1, 2, 3])
each_nonempty_subset = pytest.mark.parametrize(
    "wanted", list(product([False, True], repeat=3))[1:], ids=str
)


def parts_of(w: Matrix, *, transposed: bool) -> CsrParts:
    return w.parts if transposed else CsrParts(*w.parts[:3])


def leaf(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, requires_grad=True)


@each_shape
@each_batch
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
def test_sparse_linear(name, batch, check):
    w = Matrix.of_mask(MASKS[name])
    out_features, in_features = w.dense.shape
    topology = w.topology

    def function(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return sparse_linear(x, topology, values, bias)

    assert check(function, (leaf(batch, in_features), leaf(w.col.shape[0]), leaf(out_features)))


@each_shape
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("check", [gradcheck, gradgradcheck])
@pytest.mark.parametrize("transposed", [False, True])
def test_each_product(name, batch, check, transposed):
    w = Matrix.of_mask(MASKS[name])
    parts = parts_of(w, transposed=transposed)
    x, dy, values = leaf(batch, w.dense.shape[1]), leaf(batch, w.dense.shape[0]), leaf(len(w.col))
    assert check(lambda x, v: apply(LINEAR, parts, x, v, None), (x, values))
    assert check(lambda g, v: apply(ADJOINT, parts, g, v), (dy, values))
    assert check(lambda g, x: apply(SAMPLED, parts, g, x), (dy, x))
    assert check(lambda g: apply(SAMPLE_SUM, parts, g), (dy,))


def _operands(wanted: tuple[bool, ...]) -> tuple[Matrix, list[Tensor]]:
    w = Matrix.of_mask(random_mask(6, 9, 20), torch.float64)
    operands = [torch.randn(4, 9).double(), w.values, torch.randn(6).double()]
    return w, [o.clone().requires_grad_(needed) for o, needed in zip(operands, wanted, strict=True)]


@each_nonempty_subset
def test_exactly_the_wanted_gradients_appear_and_equal_dense_ones(wanted):
    w, (x, values, bias) = _operands(wanted)
    y = sparse_linear(x, w.topology, values, bias)
    g = torch.randn_like(y)
    y.backward(g)
    with torch.no_grad():
        expected = [g @ w.dense, (g.t() @ x)[w.dense != 0], g.sum(0)]
    for operand, needed, gradient in zip((x, values, bias), wanted, expected, strict=True):
        if needed:
            torch.testing.assert_close(operand.grad, gradient)
        else:
            assert operand.grad is None


@each_nonempty_subset
def test_backward_runs_only_the_products_whose_result_is_wanted(wanted):
    w, (x, values, bias) = _operands(wanted)
    y = apply(LINEAR, w.parts, x, values, bias)
    with OperatorLog() as ran:
        y.sum().backward()
    each = ["spmm_transposed", "sddmm", "column_sum"]
    expected = [n for n, needed in zip(each, wanted, strict=True) if needed]
    assert sorted(ran.names) == (["spmm_backward"] if wanted[1] else sorted(expected))


@pytest.mark.parametrize("batch", [1, 4, 20])
@each_nonempty_subset
def test_all_gradients_at_once_equal_those_one_by_one(wanted, batch):
    for_input, _, for_bias = wanted
    w = Matrix.of_mask(random_mask(6, 9, 20), torch.float64)
    x, dy = torch.randn(batch, 9).double(), torch.randn(batch, 6).double()
    for transposed in (False, True):
        parts = parts_of(w, transposed=transposed)
        at_once = ops.spmm_backward(parts, dy, x, w.values, for_input=for_input, for_bias=for_bias)
        torch.testing.assert_close(at_once.grad_values, ops.sddmm(parts, dy, x))
        for gradient, needed, alone in (
            (at_once.grad_input, for_input, ops.spmm_transposed(parts, dy, w.values)),
            (at_once.grad_bias, for_bias, ops.column_sum(dy)),
        ):
            if needed:
                torch.testing.assert_close(gradient, alone)
            else:
                assert gradient is None


@pytest.mark.parametrize("wanted", [(False, True, True), (True, True, True)])
def test_a_stateless_call_does_without_the_transposed_order(wanted):
    w, (x, values, bias) = _operands(wanted)
    with OperatorLog() as ran:
        sparse_linear(x, w.topology, values, bias).sum().backward()
    assert "transpose" not in ran.names


def test_operands_without_gradients_record_nothing():
    w, (x, values, bias) = _operands((False, False, False))
    assert sparse_linear(x, w.topology, values, bias).grad_fn is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_the_bits_are_the_same_and_nothing_is_recorded(mode):
    w, (x, values, bias) = _operands((True, True, True))
    recorded = sparse_linear(x, w.topology, values, bias)
    with mode():
        y = sparse_linear(x, w.topology, values, bias)
    assert not y.requires_grad
    assert y.grad_fn is None
    assert same_bits(y, recorded)


@pytest.mark.parametrize(
    "reduce", [torch.sum, lambda y: y.t().contiguous().sum(), lambda y: y[:, ::2].sum() + y[0, 0]]
)
def test_gradients_of_any_layout_are_followed(reduce):
    w, (x, values, bias) = _operands((True, True, True))
    ours = torch.autograd.grad(
        reduce(sparse_linear(x, w.topology, values, bias)), (x, values, bias)
    )
    dense = w.dense.clone().requires_grad_()
    theirs = torch.autograd.grad(
        reduce(torch.nn.functional.linear(x, dense, bias)), (x, dense, bias)
    )
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1][w.dense != 0])
    torch.testing.assert_close(ours[2], theirs[2])


def test_gradient_penalty_equals_the_dense_one():
    w, (x, values, bias) = _operands((True, True, True))
    dense = torch.zeros_like(w.dense)
    dense[w.dense != 0] = values.detach()
    dense.requires_grad_()

    def penalty(y: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(y.tanh().sum(), x, create_graph=True)
        return (gradient.norm(dim=1) - 1).square().sum()

    ours = penalty(sparse_linear(x, w.topology, values, bias))
    theirs = penalty(torch.nn.functional.linear(x, dense, bias))
    torch.testing.assert_close(ours, theirs)
    ours = torch.autograd.grad(ours, (x, values, bias))
    theirs = torch.autograd.grad(theirs, (x, dense, bias))
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1][w.dense != 0])
    torch.testing.assert_close(ours[2], theirs[2])


def test_third_derivatives_exist():
    w, (x, values, _) = _operands((True, True, False))
    y = sparse_linear(x, w.topology, values).pow(4).sum()
    dense = w.dense.clone().requires_grad_()
    z = torch.nn.functional.linear(x, dense).pow(4).sum()
    for _ in range(3):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        (z,) = torch.autograd.grad(z, x, create_graph=True)
        y, z = y.square().sum(), z.square().sum()
    torch.testing.assert_close(y, z)


def test_backward_twice_needs_retain_graph_and_then_adds_up():
    w, (x, values, bias) = _operands((True, True, True))
    y = sparse_linear(x, w.topology, values, bias).sum()
    y.backward(retain_graph=True)
    first = values.grad.clone()
    y.backward()
    assert same_bits(values.grad, 2 * first)
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


@pytest.mark.parametrize("changed", ["input", "values", "indices"])
def test_operands_changed_between_forward_and_backward_are_refused(changed):
    w, (x, values, _) = _operands((True, True, True))
    y = sparse_linear(x, w.topology, values).sum()  # of the memory of `w.indices`
    with torch.no_grad():
        {"input": x, "values": values, "indices": w.indices}[changed].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


@pytest.mark.parametrize("leading", [(), (2,), (2, 3), (2, 0, 3), (1, 1, 1, 5)])
def test_leading_dimensions_are_batched(leading):
    w, (_, values, bias) = _operands((False, True, True))
    x = torch.randn(*leading, 9).double().requires_grad_()
    dense = w.dense.clone().requires_grad_()
    y = sparse_linear(x, w.topology, values, bias)
    expected = torch.nn.functional.linear(x, dense, bias)
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y.square().sum(), (x, values))
    theirs = torch.autograd.grad(expected.square().sum(), (x, dense))
    torch.testing.assert_close(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1][w.dense != 0])


def test_functorch_transforms():
    w, (x, values, _) = _operands((False, False, False))

    def loss(values: Tensor, x: Tensor) -> Tensor:
        return sparse_linear(x, w.topology, values).square().sum()

    def dense_loss(dense: Tensor, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, dense).square().sum()

    ours = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(values, x[:, None])
    theirs = torch.func.vmap(torch.func.grad(dense_loss), in_dims=(None, 0))(w.dense, x[:, None])
    torch.testing.assert_close(ours, theirs[:, w.dense != 0])


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("batch", [3, 18])
def test_gradients_of_any_order(batch, ordered):
    w = Matrix.of_mask(random_mask(5, 6, 12), torch.float64)
    parts = parts_of(w, transposed=ordered)
    x, values, bias = leaf(batch, 6), leaf(len(w.col)), leaf(5)

    def product(x, values, bias):
        return apply(LINEAR, parts, x, values, bias)

    assert gradcheck(product, (x, values, bias))
    assert gradgradcheck(product, (x, values, bias))
