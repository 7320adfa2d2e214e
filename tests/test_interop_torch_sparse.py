"""There and back with the real torch-sparse, where it is installed."""

from __future__ import annotations

import pytest
import torch
from oracles import MASKS, VALUE_DTYPES, same_bits
from small_layers import of_mask, small

from torch_truly_sparse import interop

torch_sparse = pytest.importorskip(
    "torch_sparse",
    reason="torch-sparse is not installed: `make torch-sparse` compiles it (a quarter of an hour)",
    exc_type=ImportError,
)

# nn.Linear says so of itself.
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
def test_there_and_back_without_loss(mask, dtype):
    layer = of_mask(mask, dtype)
    if layer.nnz:
        with torch.no_grad():
            layer.values[0] = 0
    matrix = interop.to_torch_sparse(layer)
    assert matrix.sizes() == list(mask.shape)
    assert matrix.nnz() == layer.nnz
    assert torch.equal(matrix.to_dense(), layer.to_dense().weight)
    again = interop.from_torch_sparse(matrix, bias=layer.bias)
    assert same_bits(again.indices, layer.indices)
    assert same_bits(again.values, layer.values)
    assert same_bits(again.bias, layer.bias)
    assert interop.from_torch_sparse(matrix).bias is None


def test_it_computes_what_the_layer_computes():
    layer = small()
    x = torch.randn(9, 4)
    product = interop.to_torch_sparse(layer) @ x
    torch.testing.assert_close(product, (layer(x.t()) - layer.bias).t())


def test_nothing_is_shared():
    layer = small()
    before = layer.values.detach().clone()
    matrix = interop.to_torch_sparse(layer)
    matrix.storage.value().fill_(7)
    assert torch.equal(layer.values, before)
    assert not matrix.requires_grad()
    again = interop.from_torch_sparse(matrix)
    with torch.no_grad():
        again.values.zero_()
    assert (matrix.storage.value() == 7).all()


def entries(rows: list[int], columns: list[int], values: list[float]) -> torch_sparse.SparseTensor:
    return torch_sparse.SparseTensor(
        row=torch.tensor(rows),
        col=torch.tensor(columns),
        value=torch.tensor(values),
        sparse_sizes=(3, 4),
    )


def test_unsorted_entries_are_sorted_with_their_values():
    layer = interop.from_torch_sparse(entries([2, 0, 2], [3, 2, 0], [1.0, 2.0, 3.0]))
    assert layer.indices.tolist() == [[0, 2, 2], [2, 0, 3]]
    assert layer.values.tolist() == [2.0, 3.0, 1.0]


def test_entries_that_occur_twice_are_refused_or_added():
    matrix = entries([2, 0, 2], [3, 2, 3], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"the entry \(2, 3\) more than once"):
        interop.from_torch_sparse(matrix)
    layer = interop.from_torch_sparse(matrix, coalesce=True)
    assert layer.indices.tolist() == [[0, 2], [2, 3]]
    assert layer.values.tolist() == [2.0, 4.0]


def test_what_cannot_be_converted_says_why():
    with pytest.raises(TypeError, match=r"must be a torch_sparse.SparseTensor, got Tensor of layo"):
        interop.from_torch_sparse(torch.eye(2).to_sparse())
    with pytest.raises(TypeError, match=r"`matrix` has no values"):
        interop.from_torch_sparse(entries([0], [0], [1.0]).set_value(None, layout="coo"))
    with pytest.raises(ValueError, match=r"one value for each entry, got values of shape \(1, 2\)"):
        interop.from_torch_sparse(
            torch_sparse.SparseTensor(
                row=torch.tensor([0]), col=torch.tensor([0]), value=torch.ones(1, 2)
            )
        )
    with pytest.raises(TypeError, match=r"must be float32 or float64, got torch.int64"):
        interop.from_torch_sparse(entries([0], [0], [1]))
    with pytest.raises(TypeError, match=r"`layer` must be a TrulySparseLinear, got Linear"):
        interop.to_torch_sparse(torch.nn.Linear(2, 2))
