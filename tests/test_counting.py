"""What torch's own tools see of sparse layers: operations, graphs, swapped tensors, states."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import all_same_bits
from small_layers import seeded
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear


def operations(layer: nn.Module, batch: int, for_input: bool, nested: bool = False) -> int:
    input = torch.ones(batch, 50, requires_grad=for_input)
    with FlopCounterMode(display=False) as counter:
        output = layer(input)
        output.sum().backward(create_graph=nested)
    return counter.get_total_flops()


@pytest.mark.filterwarnings("ignore:Using backward.* with create_graph:UserWarning")
@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize("for_input", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_operations_are_those_of_the_nonzeros(batch, for_input, nested):
    sparse = operations(TrulySparseLinear(50, 40, nnz=200), batch, for_input, nested)
    dense = operations(nn.Linear(50, 40), batch, for_input, nested)
    assert dense == 2 * batch * 2000 * (3 if for_input else 2)
    assert sparse == dense * 200 // 2000


@pytest.fixture
def swapping():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.parametrize("nnz", [200, 150])
def test_states_load_where_torch_swaps_tensors(swapping, nnz):
    layer = TrulySparseLinear(50, 40, nnz=200)
    x = torch.randn(20, 50, requires_grad=True)
    layer(x).sum().backward()
    held = layer.topology
    twin = copy.deepcopy(layer)
    state = TrulySparseLinear(50, 40, nnz=nnz).state_dict()
    for each in (twin, layer):
        parameter = each.values
        each.load_state_dict(state)
        assert each.values is parameter
        assert all_same_bits(each.state_dict(), state)
        torch.testing.assert_close(each(x), each.to_dense()(x))
    assert torch.__future__.get_swap_module_params_on_conversion()
    assert held.nnz == 200


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_step_does_not_trace_the_evolution():
    model = nn.Sequential(TrulySparseLinear(12, 20, nnz=60), nn.ReLU(), nn.Linear(20, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.01))
    evolution = tts.SparseEvolution(model, optimizer, every=2, generator=seeded(0))
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    step = torch.compile(optimizer.step, backend=backend)
    for _ in range(9):
        optimizer.zero_grad()
        model(torch.ones(4, 12)).square().sum().backward()
        step()
    assert len(evolution.history) == 4
    assert evolution.steps == 9
    assert len(graphs) <= 2


def test_a_history_is_saved_as_a_few_tensors_and_comes_back():
    model = nn.Sequential(TrulySparseLinear(12, 20, nnz=60), TrulySparseLinear(20, 3, nnz=9))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(model, optimizer, generator=seeded(0))
    for _ in range(3):
        evolution.step()
    state = evolution.state_dict()
    tensors = [each for each in state["history"].values() if isinstance(each, torch.Tensor)]
    assert sum(each.nbytes for each in tensors) == 3 * (16 + 2 * 40)
    history = evolution.history
    evolution.load_state_dict(state)
    assert evolution.history == history


def test_the_history_of_an_older_state_is_read():
    layer = TrulySparseLinear(12, 20, nnz=60)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(layer, optimizer)
    state = evolution.state_dict()
    old = {"name": "", "pruned": 3, "regrown": 3, "nnz": 60}
    state["history"] = [{"step": 4, "fraction": 0.3, "layers": [old]}]
    evolution.load_state_dict(state)
    assert evolution.history[0].layers[0].pruned == 3


@pytest.mark.parametrize("history", [{}, {"steps": 3}, {"steps": torch.zeros(1)}], ids=str)
def test_a_history_that_is_none_is_refused(history):
    layer = TrulySparseLinear(12, 20, nnz=60)
    evolution = tts.SparseEvolution(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    state = {**evolution.state_dict(), "steps": 5, "history": history}
    with pytest.raises(ValueError, match="no history"):
        evolution.load_state_dict(state)
    assert evolution.steps == 0
