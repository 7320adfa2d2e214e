"""`layer.weight` describes itself without cost, and becomes the matrix when it is read."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse.nn import weight_on_demand


def layer(**settings) -> tts.TrulySparseLinear:
    return tts.TrulySparseLinear(9, 7, density=0.3, **settings)


DESCRIPTIONS = {
    "shape": lambda w: w.shape,
    "dtype": lambda w: w.dtype,
    "device": lambda w: w.device,
    "layout": lambda w: w.layout,
    "ndim": lambda w: w.ndim,
    "requires_grad": lambda w: w.requires_grad,
    "is_cpu": lambda w: w.is_cpu,
    "is_cuda": lambda w: w.is_cuda,
    "is_meta": lambda w: w.is_meta,
    "is_sparse": lambda w: w.is_sparse,
    "size": lambda w: (w.size(), w.size(0), w.size(-1)),
    "dim": lambda w: w.dim(),
    "numel": lambda w: (w.numel(), w.nelement()),
    "len": len,
    "element_size": lambda w: w.element_size(),
    "is_floating_point": lambda w: (w.is_floating_point(), w.is_complex()),
    "is a tensor": lambda w: (isinstance(w, torch.Tensor), torch.is_tensor(w)),
}


@pytest.mark.parametrize("ask", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_description_makes_no_matrix(ask, dtype, monkeypatch) -> None:
    sparse = layer(dtype=dtype)
    expected = ask(sparse.weight.clone())

    def never(*_):
        raise AssertionError("the matrix was made")

    monkeypatch.setattr("torch_truly_sparse.nn.truly_sparse_linear.coo_tensor", never)
    assert ask(sparse.weight) == expected


def test_a_description_touches_no_other_weight_of_a_large_layer() -> None:
    sparse = tts.TrulySparseLinear(10**6, 10**6, nnz=100)
    assert sparse.weight.shape == (10**6, 10**6)
    assert sparse.weight.numel() == 10**12


def test_every_reading_function_takes_it_as_the_matrix() -> None:
    sparse = layer()
    dense = sparse.to_dense().weight
    weight = sparse.weight
    x = torch.randn(4, 9)
    torch.testing.assert_close(weight.to_dense(), dense)
    torch.testing.assert_close(torch.sparse.mm(weight, x.T), dense @ x.T)
    torch.testing.assert_close((weight * 2).to_dense(), dense * 2)
    torch.testing.assert_close(weight.pow(2).sum(), dense.pow(2).sum())
    torch.testing.assert_close(torch.sparse.sum(weight, dim=1).to_dense(), dense.sum(1))
    assert torch.equal(weight.indices(), sparse.indices.long())
    assert torch.equal(weight.values(), sparse.values)
    assert weight.is_coalesced()
    assert weight._nnz() == sparse.nnz
    assert not weight.is_leaf
    assert weight.grad_fn is not None
    assert "nnz=19" in repr(weight)
    assert type(weight.clone()) is torch.Tensor


def test_gradients_reach_the_values() -> None:
    sparse = layer()
    sparse.weight.to_dense().square().sum().backward()
    torch.testing.assert_close(sparse.values.grad, 2 * sparse.values.detach())


def test_it_is_copied_and_pickled_as_the_matrix() -> None:
    with torch.no_grad():
        weight = layer().requires_grad_(False).weight
    expected = weight.to_dense()
    for copied in (copy.deepcopy(weight), copy.copy(weight), pickle.loads(pickle.dumps(weight))):
        torch.testing.assert_close(copied.to_dense(), expected)


@pytest.mark.parametrize("change", ["values", "topology"])
def test_a_weight_of_a_layer_that_has_changed_is_refused(change) -> None:
    sparse = layer()
    read, unread = sparse.weight, sparse.weight
    before = read.to_dense()
    with torch.no_grad():
        if change == "values":
            sparse.values.mul_(2)
        else:
            sparse.reset_topology()
    torch.testing.assert_close(read.to_dense(), before)
    with pytest.raises(RuntimeError, match=r"keep a copy with `layer.weight.clone\(\)`"):
        unread.to_dense()
    assert unread.shape == (7, 9)
    torch.testing.assert_close(sparse.weight.to_dense(), sparse.to_dense().weight)


def test_an_invalid_topology_raises_as_the_entries_are_read() -> None:
    sparse = layer()
    sparse.indices.data[1, 0] = 100
    assert sparse.weight.dtype == torch.float32
    with pytest.raises(ValueError, match="outside"):
        sparse.weight.to_dense()


def test_what_cannot_make_it_is_refused() -> None:

    weight = layer().weight
    assert type(weight) is weight_on_demand.WeightOnDemand
    with weight_on_demand.without_torch_function(), pytest.raises(RuntimeError, match="on demand"):
        torch.ops.aten.mul.Tensor(weight, 2)


@pytest.mark.filterwarnings("ignore:Dynamo does not know how to trace")
@pytest.mark.filterwarnings("ignore:.*autograd.function.Function.* should not be instantiated")
def test_models_that_ask_for_the_dtype_compile() -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = layer()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.to(self.inner.weight.dtype))

    model = Asking()
    x = torch.randn(3, 9, dtype=torch.float64)
    torch.testing.assert_close(torch.compile(model, backend="eager")(x), model(x))
