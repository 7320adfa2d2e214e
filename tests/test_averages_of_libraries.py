"""Averages and restored weights of other code, while the topology evolves: noticed where it can be.

What nobody can notice is listed by name in docs/pytorch.md.
"""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import TrulySparseLinear


def network() -> nn.Sequential:
    return nn.Sequential(
        TrulySparseLinear(600, 20, nnz=300, generator=seeded(0)), nn.ReLU(), nn.Linear(20, 3)
    )


def train(model, after=lambda: None, *, fraction=0.3, steps=7):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    evolution = tts.SparseEvolution(
        model, optimizer, fraction=fraction, every=2, generator=seeded(1)
    )
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(4, 600)).square().sum().backward()
        optimizer.step()
        after()
    evolution.remove()


def average_of_ema_pytorch(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("ema_pytorch")
    return library.EMA(model, beta=0.9, update_after_step=0, update_every=1, **options)


def test_ema_pytorch_is_warned_of_once_the_topology_evolves():
    """It averages floats, and leaves integers as they were when it made its copy."""
    model = network()
    average = average_of_ema_pytorch(model)
    average.update()  # copies all that the model has
    average(torch.ones(1, 600))
    train(model, average.update)
    with pytest.warns(UserWarning, match=r"tts\.nn\.AveragedModel"):
        average(torch.ones(1, 600))


def test_ema_pytorch_is_right_while_the_topology_is_fixed():
    model = network()
    average = average_of_ema_pytorch(model)
    average.update()
    train(model, average.update, fraction=0.0)
    average(torch.ones(1, 600))
    assert torch.equal(average.ema_model[0].indices, model[0].indices)


class FloatsOnly:
    """An EMA as many write it themselves: a copy that needs no gradients, floats averaged."""

    def __init__(self, model):
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model):
        for mean, now in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.lerp_(now, 0.1)


def test_averages_of_floats_alone_are_warned_of():
    model = network()
    average = FloatsOnly(model)
    train(model, lambda: average.update(model), fraction=0.0)
    average.model(torch.ones(1, 600))  # no warning: the topology is that of the model
    train(model, lambda: average.update(model))
    with pytest.warns(UserWarning, match=r"tts\.nn\.AveragedModel"):
        average.model(torch.ones(1, 600))


def test_a_copy_that_is_left_alone_is_not_warned_of():
    model = network()
    best = copy.deepcopy(model).requires_grad_(False)
    train(model)
    best(torch.ones(1, 600))


def test_averages_of_every_entry_of_a_state_are_refused():
    """As timm's ModelEmaV2 averages, and what follows its pattern."""
    model = network()
    average = copy.deepcopy(model)

    @torch.no_grad()
    def update():
        entries = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
        for mean, now in entries:
            mean.copy_(0.9 * mean + 0.1 * now)

    train(model, update)
    with pytest.raises(ValueError, match=r"tts\.nn\.AveragedModel"):
        average(torch.ones(1, 600))


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("kept", [True, False])
def test_best_weights_that_are_restored_without_the_optimizer_are_warned_of(optimizer_type, kept):
    settings = {"momentum": 0.9} if optimizer_type is torch.optim.SGD else {}
    model = network()
    optimizer = optimizer_type(model.parameters(), lr=0.01, **settings)
    tts.SparseEvolution(model, optimizer, every=2, generator=seeded(1))

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.ones(4, 600)).square().sum().backward()
            optimizer.step()

    steps(2)
    best = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    steps(4)
    model.load_state_dict(best[0])
    if kept:
        with pytest.warns(UserWarning, match="the optimizer kept its state") as told:
            steps(5)
        assert len(told) == 1
    else:
        optimizer.load_state_dict(best[1])
        steps(5)


def test_the_same_topology_loaded_again_is_not_warned_of():
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    tts.SparseEvolution(model, optimizer, every=100)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.ones(4, 600)).square().sum().backward()
        optimizer.step()
        model.load_state_dict(copy.deepcopy(model.state_dict()))
