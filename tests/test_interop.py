"""There and back: torch.sparse and SciPy."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch
from oracles import MASKS, VALUE_DTYPES, same_bits
from small_layers import of_mask, small
from torch import Tensor

import torch_truly_sparse as tts
from torch_truly_sparse import interop

scipy_sparse = pytest.importorskip("scipy.sparse")

# What torch says of its own sparse tensors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),  # of nn.Linear
]
WAYS = {
    "torch coo": (interop.to_torch_coo, interop.from_torch_coo),
    "torch csr": (interop.to_torch_csr, interop.from_torch_csr),
    "scipy csr": (interop.to_scipy_csr, interop.from_scipy),
}
each_way = pytest.mark.parametrize("way", WAYS)


def dense(matrix: object) -> Tensor:
    if isinstance(matrix, Tensor):
        return matrix.to_dense()
    return torch.tensor(matrix.toarray())


@each_way
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
def test_there_and_back_without_loss(way, mask, dtype):
    there, back = WAYS[way]
    layer = of_mask(mask, dtype)
    if layer.nnz:
        with torch.no_grad():
            layer.values[0] = 0  # explicit zeros are connections
    matrix = there(layer)
    assert tuple(matrix.shape) == tuple(mask.shape)
    assert torch.equal(dense(matrix), layer.to_dense().weight)
    again = back(matrix, bias=layer.bias)
    assert same_bits(again.indices, layer.indices)
    assert same_bits(again.values, layer.values)
    assert same_bits(again.bias, layer.bias)
    assert again.values.requires_grad


@each_way
def test_nothing_is_shared(way):
    there, back = WAYS[way]
    layer = small()
    before = layer.values.detach().clone()
    matrix = there(layer)
    again = back(matrix, bias=layer.bias)
    with torch.no_grad():
        again.values.zero_()
        again.bias.zero_()
        again.indices.zero_()
    values = matrix.data if way == "scipy csr" else matrix.values()
    assert torch.equal(torch.as_tensor(values), before)
    values[:] = 7
    assert torch.equal(layer.values, before)
    assert back(matrix).bias is None


@each_way
def test_it_computes_what_the_layer_computes(way):
    layer = small()
    x = torch.randn(9, 4)
    matrix = WAYS[way][0](layer)
    product = torch.as_tensor(matrix @ x.numpy()) if way == "scipy csr" else matrix @ x
    torch.testing.assert_close(product, (layer(x.t()) - layer.bias).t())


def test_indices_keep_their_dtype_where_the_format_lets_them():
    layer = small()
    assert interop.to_torch_csr(layer).col_indices().dtype == torch.int32
    assert interop.to_torch_csr(layer).crow_indices().dtype == torch.int32
    assert interop.to_scipy_csr(layer).indices.dtype == np.int32
    assert interop.to_torch_coo(layer).indices().dtype == torch.int64
    assert interop.to_torch_coo(layer).is_coalesced()
    assert interop.to_scipy_csr(layer).has_canonical_format


def csr(columns: list[int], values: list[float], dtype: torch.dtype = torch.int64) -> Tensor:
    """Rows of 2, 0 and the remaining entries, 3 x 4."""
    pointers = torch.tensor([0, 2, 2, len(columns)], dtype=dtype)
    return torch.sparse_csr_tensor(
        pointers, torch.tensor(columns, dtype=dtype), torch.tensor(values), (3, 4)
    )


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_csr_comes_in_with_either_index_dtype(dtype):
    layer = interop.from_torch_csr(csr([1, 3, 0, 2], [1.0, 2.0, 3.0, 4.0], dtype))
    assert layer.indices.dtype == torch.int32
    assert layer.indices.tolist() == [[0, 0, 2, 2], [1, 3, 0, 2]]


def unsorted_with(columns: list[int], rows: list[int], values: list[float]) -> dict[str, object]:
    """The same 3 x 4 entries in every form that leaves their order alone."""
    indices = torch.tensor([rows, columns])
    data = np.array(values, dtype=np.float32)
    order = np.argsort(rows, kind="stable")
    pointers = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=3))])
    return {
        "torch coo": torch.sparse_coo_tensor(
            indices, torch.tensor(values), (3, 4), check_invariants=False
        ),
        "scipy coo": scipy_sparse.coo_array((data, (rows, columns)), shape=(3, 4)),
        "scipy csr": scipy_sparse.csr_array(
            (data[order], np.array(columns)[order], pointers), shape=(3, 4)
        ),
    }


FORMS = ["torch coo", "scipy coo", "scipy csr"]


@pytest.mark.parametrize("form", FORMS)
def test_unsorted_entries_are_sorted_with_their_values(form):
    matrix = unsorted_with([3, 2, 0, 1], [2, 0, 2, 0], [1.0, 2.0, 3.0, 4.0])[form]
    back = interop.from_torch_coo if form == "torch coo" else interop.from_scipy
    layer = back(matrix)
    assert layer.indices.tolist() == [[0, 0, 2, 2], [1, 2, 0, 3]]
    assert layer.values.tolist() == [4.0, 2.0, 3.0, 1.0]


@pytest.mark.parametrize("form", FORMS)
def test_entries_that_occur_twice_are_refused_or_added(form):
    matrix = unsorted_with([3, 2, 0, 2, 3], [2, 0, 1, 0, 2], [1.0, 2.0, 3.0, -2.0, 5.0])[form]
    back = interop.from_torch_coo if form == "torch coo" else interop.from_scipy
    with pytest.raises(ValueError, match=r"the entry \(0, 2\) more than once; `coalesce=True`"):
        back(matrix)
    layer = back(matrix, coalesce=True)
    assert layer.indices.tolist() == [[0, 1, 2], [2, 0, 3]]
    assert layer.values.tolist() == [0.0, 3.0, 6.0]  # a sum of 0 stays, too
    assert torch.equal(layer.to_dense().weight, dense(matrix))


def test_unsorted_rows_of_a_torch_csr():
    matrix = torch.sparse_csr_tensor(
        torch.tensor([0, 2, 2, 4]),
        torch.tensor([3, 1, 0, 0]),
        torch.tensor([1.0, 2.0, 3.0, 4.0]),
        (3, 4),
        check_invariants=False,
    )
    with pytest.raises(ValueError, match=r"the entry \(2, 0\) more than once"):
        interop.from_torch_csr(matrix)
    layer = interop.from_torch_csr(matrix, coalesce=True)
    assert layer.indices.tolist() == [[0, 0, 2], [1, 3, 0]]
    assert layer.values.tolist() == [2.0, 1.0, 7.0]


@pytest.mark.parametrize("form", ["csc", "lil", "dok", "bsr", "dia"])
def test_scipys_other_formats_and_matrices(form):
    layer = small()
    matrix = interop.to_scipy_csr(layer).asformat(form)
    assert torch.equal(interop.from_scipy(matrix).to_dense().weight, layer.to_dense().weight)
    matrix = scipy_sparse.csr_matrix(interop.to_scipy_csr(layer))
    assert torch.equal(interop.from_scipy(matrix).indices, layer.indices)


def test_indices_out_of_range_are_refused_before_they_become_other_entries():
    matrix = torch.sparse_coo_tensor([[0], [4]], [1.0], (3, 4), check_invariants=False)
    with pytest.raises(ValueError, match=r"indices from 4 to 4 in dimension 1, which has the size"):
        interop.from_torch_coo(matrix)
    matrix = torch.sparse_coo_tensor([[-1], [3]], [1.0], (3, 4), check_invariants=False)
    with pytest.raises(ValueError, match=r"indices from -1 to -1 in dimension 0"):
        interop.from_torch_coo(matrix)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: interop.to_torch_coo(torch.nn.Linear(2, 2)), TypeError, "must be a TrulySparse"),
        (lambda: interop.to_torch_csr(3), TypeError, "`layer` must be a TrulySparseLinear, got"),
        (lambda: interop.to_scipy_csr(3), TypeError, "`layer` must be a TrulySparseLinear, got"),
        (lambda: interop.from_torch_coo(torch.ones(2, 2)), TypeError, "got Tensor of layout torch"),
        (lambda: interop.from_torch_csr(torch.ones(2, 2)), TypeError, "must be a torch.sparse_csr"),
        (lambda: interop.from_scipy(np.ones((2, 2))), TypeError, "sparse array, got ndarray"),
        (
            lambda: interop.from_torch_coo(torch.ones(2, 2, 2).to_sparse()),
            ValueError,
            "two sparse dimensions and no dense one, got 3 and 0",
        ),
        (
            lambda: interop.from_torch_coo(torch.ones(2, 2, 2).to_sparse(2)),
            ValueError,
            "got 2 and 1",
        ),
        (
            lambda: interop.from_torch_coo(torch.eye(2, dtype=torch.int64).to_sparse()),
            TypeError,
            "must be float32 or float64, got torch.int64",
        ),
        (
            lambda: interop.from_scipy(scipy_sparse.csr_array(np.eye(2, dtype=np.int64))),
            TypeError,
            "must be float32 or float64, got int64: use",
        ),
        (
            lambda: interop.from_torch_coo(torch.eye(2).to_sparse(), bias=torch.ones(3)),
            ValueError,
            r"`bias` must have shape \(2,\), got \(3,\)",
        ),
        (
            lambda: interop.to_scipy_csr(small(device="meta")),
            TypeError,
            "must be on the CPU, got meta",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("library", "call", "message"),
    [
        ("scipy", lambda: interop.to_scipy_csr(small()), "SciPy is not installed: pip install"),
        ("torch_sparse", lambda: interop.to_torch_sparse(small()), "torch-sparse is not installed"),
        ("torch_sparse", lambda: interop.from_torch_sparse(None), "--no-build-isolation torch_sc"),
    ],
)
def test_a_missing_library_comes_with_its_remedy(monkeypatch, library, call, message):
    real = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.split(".")[0] == library:
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=message):
        call()


def test_the_room_is_part_of_the_public_interface():
    assert tts.interop is interop
    assert all(callable(getattr(interop, name)) for name in interop.__all__)
