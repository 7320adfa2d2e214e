"""Habits of code that knows nn.Linear, and what comes of them: the table in docs/pytorch.md."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles import same_bits
from small_layers import seeded, small
from torch import Tensor, nn

import torch_truly_sparse as tts


def network(seed: int = 0, density: float = 0.3) -> nn.Module:
    torch.manual_seed(seed)
    dense = nn.Sequential(nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 5))
    return tts.sparsify(dense, density=density, generator=seeded(seed))


def test_an_init_function_by_type() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())

    def init(module: nn.Module, kinds: tuple[type, ...]) -> None:
        if isinstance(module, kinds):
            weight = module.values if isinstance(module, tts.TrulySparseLinear) else module.weight
            nn.init.constant_(weight, 3.0)

    model.apply(lambda module: init(module, (nn.Linear,)))
    assert all(same_bits(before[name], now) for name, now in model.state_dict().items())
    model.apply(lambda module: init(module, (nn.Linear, tts.TrulySparseLinear)))
    assert (model[0].values == 3).all()


@pytest.mark.parametrize(
    ("habit", "error"),
    [
        (lambda layer, x: nn.init.normal_(layer.weight), NotImplementedError),
        (lambda layer, x: nn.init.xavier_uniform_(layer.weight), NotImplementedError),
        (lambda layer, x: layer.weight.data.normal_(), NotImplementedError),
        (lambda layer, x: F.linear(x, layer.weight, layer.bias), RuntimeError),
        (lambda layer, x: torch.fx.symbolic_trace(nn.Sequential(layer)), TypeError),
    ],
    ids=["init", "xavier", "data", "F.linear", "fx"],
)
def test_what_is_refused_changes_nothing(
    habit: Callable[[nn.Module, Tensor], object], error: type[Exception]
) -> None:
    layer = small()
    before = layer.values.detach().clone()
    with pytest.raises(error):
        habit(layer, torch.randn(3, 9))
    assert same_bits(layer.values, before)


def test_a_product_with_the_weight() -> None:
    layer, x = small(bias=False), torch.randn(3, 9)
    torch.testing.assert_close(torch.sparse.mm(layer.weight, x.T).T, layer(x))


def test_groups_by_dimension_and_by_name() -> None:
    model = network()
    named = dict(model.named_parameters())
    assert [name for name, p in named.items() if p.dim() >= 2 or "weight" in name] == []
    decaying = [name for name, p in named.items() if p.dim() >= 2 or name.endswith("values")]
    assert decaying == [name for name in named if not name.endswith("bias")]
    assert decaying == ["0.values", "2.values"]
    assert sum(p.numel() for p in named.values()) == model[0].nnz + 12 + model[2].nnz + 5


def test_target_networks() -> None:
    model, target, x = network(0, 0.3), network(1, 0.5), torch.randn(4, 9)
    target.load_state_dict(model.state_dict())
    assert same_bits(target(x), model(x))
    average = tts.nn.AveragedModel(model, avg_fn=lambda mean, now, n: mean.lerp(now, 0.25))
    average.update_parameters(model)
    model[0].reset_topology(generator=seeded(5))
    average.update_parameters(model)
    assert torch.equal(average.module[0].indices, model[0].indices)


def test_tracing_with_the_layer_as_a_leaf() -> None:
    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return isinstance(module, tts.nn.SparseLayer) or super().is_leaf_module(module, name)

    model, x = network(), torch.randn(4, 9)
    traced = torch.fx.GraphModule(model, Tracer().trace(model))
    assert same_bits(traced(x), model(x))


def test_a_compiled_model_evolves_under_the_names_of_the_module_inside() -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1)
    record = tts.SparseEvolution(compiled, optimizer, exclude=["2"]).step()
    assert [layer.name for layer in record.layers] == ["0"]
