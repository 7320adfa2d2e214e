"""Writes behind a layer's back: each ends in an error that can be caught, never in a crash."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from forked import outcomes_of, print_outcomes
from torch import Tensor

from torch_truly_sparse import MaskedLinear, SparseEvolution, TrulySparseLinear

INT32_MAX = 2**31 - 1
OUT, IN, NNZ = 60, 50, 900


def used_layer() -> TrulySparseLinear:
    torch.manual_seed(0)
    layer = TrulySparseLinear(IN, OUT, nnz=NNZ)
    layer(torch.ones(3, IN, requires_grad=True)).sum().backward()
    return layer


def _write_numpy(tensor: Tensor, number: int) -> None:
    tensor.numpy()[:] = number


WRITES: dict[str, Callable[[Tensor, int], object]] = {
    "data": lambda tensor, number: tensor.data.fill_(number),
    "numpy": _write_numpy,
}
NUMBERS = {"huge": INT32_MAX, "most negative": -(2**31), "-1": -1}
FIRST_OUTSIDE = {
    "rows": OUT,
    "columns": IN,
    "last column": IN,
    "all indices": OUT,
    "crow_indices": NNZ + 1,
}
EACH_NUMBER = [*NUMBERS, "first outside"]


def number_for(part: str, name: str) -> int:
    return NUMBERS.get(name, FIRST_OUTSIDE[part])


PARTS: dict[str, Callable[[TrulySparseLinear], Tensor]] = {
    "rows": lambda layer: layer.indices[0],
    "columns": lambda layer: layer.indices[1],
    "last column": lambda layer: layer.indices[1, -1:],
    "all indices": lambda layer: layer.indices,
    "crow_indices": lambda layer: layer.topology.row_pointers,
}


def _train(layer: TrulySparseLinear, batch: int = 3) -> list[Tensor]:
    x = torch.ones(batch, IN, requires_grad=True)
    y = layer(x)
    return [y, *torch.autograd.grad(y.sum(), (x, layer.values, layer.bias))]


USES: dict[str, Callable[[TrulySparseLinear], object]] = {
    "training": _train,
    "training on one sample": partial(_train, batch=1),
    "training on a large batch": partial(_train, batch=64),
    "training a copy": lambda layer: _train(copy.deepcopy(layer)),
    "to_dense": lambda layer: layer.to_dense(),
    "weight": lambda layer: layer.weight.to_dense(),
    "multiplying by weight": lambda layer: torch.sparse.mm(layer.weight, torch.ones(IN, 3)),
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "masking": MaskedLinear.from_sparse,
    "saving and loading": lambda layer: used_layer().load_state_dict(layer.state_dict()),
    "evolving": lambda layer: SparseEvolution(
        layer, torch.optim.SGD(layer.parameters(), lr=0.1)
    ).step(),
}
HARMED = {
    "training": ["columns", "last column", "all indices", "crow_indices"],
    "training on one sample": ["columns", "crow_indices"],
    "training on a large batch": ["columns", "last column", "crow_indices"],
    "training a copy": ["rows", "columns", "last column"],
    "to_dense": ["rows", "columns"],
    "weight": ["rows", "columns"],
    "multiplying by weight": ["rows", "columns"],
    "reset_parameters": ["rows", "columns"],
    "masking": ["rows", "columns"],
    "saving and loading": ["rows", "columns"],
    "evolving": ["rows", "columns"],
}
WRITTEN = [
    (use, part, number, how)
    for use, parts in HARMED.items()
    for part, number, how in product(parts, EACH_NUMBER, WRITES)
    if how == "data" or use == "training"
]


def write_and_use(use: str, part: str, number: str, how: str) -> None:
    layer = used_layer()
    WRITES[how](PARTS[part](layer), number_for(part, number))
    USES[use](layer)


def write_between_forward_and_backward(part: str, number: str) -> None:
    layer = used_layer()
    x = torch.ones(3, IN, requires_grad=True)
    y = layer(x)
    PARTS[part](layer).data.fill_(number_for(part, number))
    y.sum().backward()


def cases() -> dict[str, Callable[[], object]]:
    table = {repr(case): partial(write_and_use, *case) for case in WRITTEN}
    for part, number in product(PARTS, EACH_NUMBER):
        name = f"backward: {part}, {number}"
        table[name] = partial(write_between_forward_and_backward, part, number)
    return table


@pytest.fixture(scope="session")
def outcomes() -> dict[str, str]:
    return outcomes_of(__file__)


@pytest.mark.parametrize(("use", "part", "number", "how"), WRITTEN)
def test_writes_behind_the_layers_back_are_value_errors(outcomes, use, part, number, how):
    assert outcomes[repr((use, part, number, how))].startswith("ValueError: ")


@pytest.mark.parametrize(("part", "number"), list(product(PARTS, EACH_NUMBER)))
def test_writes_between_forward_and_backward_are_harmless(outcomes, part, number):
    outcome = outcomes[f"backward: {part}, {number}"]
    if part == "rows":  # the row pointers stand for them: the result is that of before the write
        assert outcome == "done"
    else:
        assert outcome.startswith("ValueError: ")


if __name__ == "__main__":
    print_outcomes(cases())
