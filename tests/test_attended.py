"""Weights that train while their evolution does not run are warned of; what can follow, follows."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import pytest
import torch
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear

WARNING = "their topology does not evolve"


def network() -> nn.Sequential:
    return nn.Sequential(
        TrulySparseLinear(12, 20, nnz=60, generator=seeded(0)), nn.ReLU(), nn.Linear(20, 3)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4, 12)).square().sum().backward()
        optimizer.step()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def through_a_file(*things):
    """Pickle each by itself, as libraries do that save the parts of a trainer."""
    return [pickle.loads(pickle.dumps(thing)) for thing in things]


def test_a_second_optimizer_that_trains_the_weights_is_warned_of_once():
    model = network()
    evolution = tts.SparseEvolution(model, adam(model), every=2)
    other = adam(model)
    with pytest.warns(UserWarning, match=WARNING + r".*on another optimizer.*Adam") as told:
        train(model, other, steps=20)
    assert len(told) == 1
    assert not evolution.history


def test_two_optimizers_that_take_turns_are_not():
    model = network()
    first, second = adam(model), adam(model)
    evolution = tts.SparseEvolution(model, first, every=2)
    train(model, second, steps=1)
    for _ in range(5):
        train(model, first, steps=1)
        train(model, second, steps=3)
    assert evolution.history


@pytest.mark.parametrize("apart", [copy.deepcopy, lambda model: through_a_file(model)[0]])
def test_a_copy_without_its_evolution_is_warned_of(apart):
    model = network()
    optimizer = adam(model)
    tts.SparseEvolution(model, optimizer, every=2)
    twin = apart(model)
    with pytest.warns(UserWarning, match=WARNING + ".*without the SparseEvolution") as told:
        train(twin, adam(twin), steps=9)
    assert len(told) == 1
    train(model, optimizer)  # the original evolves as ever


def test_an_evolution_unpickled_apart_from_the_model_is_warned_of():
    model = network()
    optimizer = adam(model)
    evolution = tts.SparseEvolution(model, optimizer, every=2)
    train(model, optimizer)
    twin, _, lone = through_a_file(model, optimizer, evolution)
    with pytest.warns(UserWarning, match=WARNING):
        train(twin, adam(twin))
    assert lone.steps == evolution.steps


def test_what_is_copied_together_evolves_without_a_word():
    model = network()
    optimizer = adam(model)
    evolution = tts.SparseEvolution(model, optimizer, every=2)
    model, optimizer, evolution = copy.deepcopy((model, optimizer, evolution))
    train(model, optimizer, steps=9)
    assert len(evolution.history) == 4


def test_a_copy_with_a_new_evolution_or_after_remove_is_quiet():
    model = network()
    evolution = tts.SparseEvolution(model, adam(model), every=2)
    twin = copy.deepcopy(model)
    optimizer = adam(twin)
    newer = tts.SparseEvolution(twin, optimizer, every=2)
    train(twin, optimizer)
    assert newer.history
    evolution.remove()
    for free in (model, copy.deepcopy(model)):
        train(free, adam(free))


def test_a_copy_that_does_not_train_is_quiet():
    model = network()
    optimizer = adam(model)
    tts.SparseEvolution(model, optimizer, every=2)
    best = copy.deepcopy(model)
    train(model, optimizer)
    best(torch.ones(1, 12))


def test_evolving_by_hand_is_quiet():
    model = network()
    evolution = tts.SparseEvolution(model, adam(model), every=None)
    train(model, adam(model))
    evolution.step()


def test_evolutions_and_layers_are_not_kept_alive():
    model = network()
    optimizer = adam(model)
    tts.SparseEvolution(model, optimizer, every=2)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    del model, optimizer
    other = nn.Linear(2, 2)
    train_any = torch.optim.SGD(other.parameters(), lr=0.1)
    other(torch.ones(1, 2)).sum().backward()
    for _ in range(5):
        train_any.step()


class TwoSteps(torch.optim.Optimizer):
    """An optimizer of two steps around another one, as sharpness-aware minimisation is."""

    def __init__(self, parameters, base, **settings):
        super().__init__(parameters, settings)
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["kept"] = parameter.detach().clone()
                parameter.add_(parameter.grad, alpha=0.05)

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.copy_(self.state[parameter]["kept"])
        self.base_optimizer.step()


def train_in_two_steps(model: nn.Module, optimizer: TwoSteps, steps: int = 9) -> None:
    for _ in range(steps):
        for half in (optimizer.first_step, optimizer.second_step):
            optimizer.zero_grad()
            model(torch.ones(4, 12)).square().sum().backward()
            half()


@pytest.mark.parametrize("regrow", ["random", "gradient"])
def test_the_inner_optimizer_of_two_steps_evolves(regrow):
    model = network()
    optimizer = TwoSteps(model.parameters(), torch.optim.SGD, lr=0.01)
    with pytest.raises(TypeError, match="`base_optimizer`"):
        tts.SparseEvolution(model, optimizer, every=2)
    evolution = tts.SparseEvolution(model, optimizer.base_optimizer, every=2, regrow=regrow)
    train_in_two_steps(model, optimizer)
    assert len(evolution.history) == 4


def test_an_optimizer_of_two_steps_that_never_calls_step_is_warned_of(monkeypatch):
    from torch_truly_sparse.evolution import optimizer_state

    monkeypatch.setattr(optimizer_state, "_FRESH", {**optimizer_state._FRESH})
    tts.evolution.register_optimizer(TwoSteps, {"kept": 0.0})
    model = network()
    optimizer = TwoSteps(model.parameters(), torch.optim.SGD, lr=0.01)
    tts.SparseEvolution(model, optimizer, every=2)
    with pytest.warns(UserWarning, match=WARNING + ".*SGD"):
        train_in_two_steps(model, optimizer)


def test_the_optimizer_of_accelerate_evolves():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerate = pytest.importorskip("accelerate")
        accelerator = accelerate.Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(network(), adam(network()))
        optimizer = accelerator.prepare(adam(model))
    assert type(optimizer).__name__ == "AcceleratedOptimizer"
    evolution = tts.SparseEvolution(model, optimizer, every=2)
    for _ in range(5):
        optimizer.zero_grad()
        accelerator.backward(model(torch.ones(4, 12)).square().sum())
        optimizer.step()
    assert len(evolution.history) == 2


def test_a_net_of_skorch_that_is_copied_is_warned_of():
    """Its copies take module and optimizer apart from the callbacks."""
    skorch = pytest.importorskip("skorch")

    class Evolve(skorch.callbacks.Callback):
        def on_train_begin(self, net, **_):
            if not hasattr(self, "evolution_"):
                self.evolution_ = tts.SparseEvolution(net.module_, net.optimizer_, every=2)

    net = skorch.NeuralNetRegressor(
        network(), max_epochs=2, lr=0.01, batch_size=8, verbose=0, callbacks=[Evolve()],
        train_split=None,
    )  # fmt: skip
    x = torch.randn(32, 12).numpy()
    y = torch.randn(32, 3).numpy()
    net.fit(x, y)
    evolve = dict(net.callbacks_)["Evolve"]
    assert evolve.evolution_.history
    again = copy.deepcopy(net)
    with pytest.warns(UserWarning, match=WARNING):
        again.partial_fit(x, y)
    net.partial_fit(x, y)  # the original evolves as ever
