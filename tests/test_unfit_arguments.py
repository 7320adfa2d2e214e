"""Arguments of `sparse_linear` that do not fit are named; unusual ones that do are computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from torch_truly_sparse import Topology, TrulySparseLinear
from torch_truly_sparse.functional import sparse_linear

INDICES = torch.tensor([[0, 1, 1], [4, 0, 2]])


def _call(**changes: object) -> Tensor:
    arguments = {
        "input": torch.ones(2, 5),
        "topology": Topology.from_indices(INDICES, (4, 5)),
        "values": torch.ones(3),
        "bias": torch.ones(4),
    }
    return sparse_linear(**{**arguments, **changes})


ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"input": np.ones((2, 5))}, TypeError, "`input` must be a torch.Tensor, got ndarray"),
        ({"input": torch.ones(())}, ValueError, "got a scalar"),
        ({"input": torch.ones(2, 4)}, ValueError, r"must have 5 features \(in_features\), got 4"),
        ({"topology": INDICES}, TypeError, "`topology` must be a Topology, got Tensor: make one"),
        ({"topology": None}, TypeError, "`topology` must be a Topology, got NoneType"),
        (
            {"input": torch.ones(2, 5).double()},
            TypeError,
            "must share one dtype, got torch.float64",
        ),
        ({"input": torch.ones(2, 5).int()}, TypeError, "must share one dtype, got torch.int32"),
        ({"values": ONES[:2]}, ValueError, r"`values` must have shape \(3,\), .* got \(2,\)"),
        ({"values": ONES[None]}, ValueError, r"`values` must have shape \(3,\), .* got \(1, 3\)"),
        ({"values": ONES.double()}, TypeError, "must share one dtype"),
        ({"values": ONES.double().requires_grad_()}, TypeError, "must share one dtype"),
        ({"bias": torch.ones(3)}, ValueError, r"`bias` must have shape \(4,\)"),
        ({"bias": torch.ones(4).double()}, TypeError, "must share one dtype"),
        ({"values": [1.0] * 3}, TypeError, "`values` must be a torch.Tensor, got list"),
        ({"values": None}, TypeError, "`values` must be a torch.Tensor, got NoneType"),
        ({"values": ONES.numpy()}, TypeError, "`values` must be a torch.Tensor"),
        ({"values": ONES.to_sparse()}, TypeError, "`values` must be a strided tensor"),
        ({"bias": [1.0] * 4}, TypeError, "`bias` must be a torch.Tensor, got list"),
        ({"bias": torch.ones(4).to_sparse()}, TypeError, "`bias` must be a strided"),
        ({"input": torch.ones(2, 5).to_sparse()}, TypeError, "`input` must be a strided"),
        ({"input": torch.ones(2, 5).to("meta")}, ValueError, "one device"),
        ({"topology": Topology.from_indices(INDICES.to("meta"), (4, 5))}, ValueError, "one device"),
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
