"""What is on the CPU stays there, whatever torch's default device is.

`meta` stands for any other one: a tensor that is made there by mistake has no content, and fails.
"""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import all_same_bits
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import interop


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 5))


def seeded() -> torch.Generator:
    return torch.Generator("cpu").manual_seed(0)


@pytest.mark.parametrize(
    "how",
    [
        {"density": 0.3},
        {"density": 0.7, "distribution": "erdos_renyi"},
        {"density": 0.3, "distribution": "fixed_fan_in"},
        {"density": 0.7, "distribution": "fixed_fan_in"},
        {"density": 0.3, "init": "magnitude"},
        {"density": 0.3, "init": "magnitude", "distribution": "fixed_fan_in"},
        {"init": "nonzero"},
    ],
    ids=str,
)
def test_conversion(how):
    model = dense()
    with torch.no_grad():
        model[0].weight[:, ::2] = 0
    expected = tts.sparsify(model, **how, generator=seeded()).state_dict()
    with torch.device("meta"):
        sparse = tts.sparsify(model, **how, generator=seeded())
        back = tts.densify(sparse)
    assert all_same_bits(sparse.state_dict(), expected)
    x = torch.randn(3, 9)
    torch.testing.assert_close(back(x), sparse(x))


@pytest.mark.parametrize("distribution", ["uniform", "erdos_renyi", "fixed_fan_in"])
def test_a_model_of_shapes_where_shapes_are_the_default(distribution):
    with torch.device("meta"):
        model = tts.sparsify(dense(), density=0.3, distribution=distribution)
    assert model(torch.randn(3, 9)).isfinite().all()


@pytest.mark.parametrize(
    "regrow", ["random", "gradient", "candidate_gradient", "cannistraci_hebb", "momentum"]
)
def test_training_and_evolution(regrow):
    model, x = tts.sparsify(dense(), density=0.3), torch.randn(20, 9)
    average = tts.nn.AveragedModel(model)
    with torch.device("meta"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        evolution = tts.SparseEvolution(model, optimizer, every=1, regrow=regrow)
        for _ in range(4):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        average.update_parameters(model)
        model.load_state_dict(copy.deepcopy(model).state_dict())
    assert len(evolution.history) == 3
    assert all(tensor.isfinite().all() for tensor in average.state_dict().values())


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_interchange(form):
    pytest.importorskip("scipy")
    layer = tts.TrulySparseLinear(9, 12, density=0.3)
    with torch.device("meta"):
        back = [
            interop.from_scipy(interop.to_scipy_csr(layer).asformat(form), bias=layer.bias),
            interop.from_torch_csr(interop.to_torch_csr(layer), bias=layer.bias),
            interop.from_torch_coo(interop.to_torch_coo(layer), bias=layer.bias),
            tts.distributed.merge_topologies([layer, layer]),
        ]
    for each in back:
        assert all_same_bits(each.state_dict(), layer.state_dict())
