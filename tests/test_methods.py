"""The methods follow their papers: rules, schedule, interval, end; and survive copies and files."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import both_twins, everything, network, same, seeded, sgd, train_step
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import rules, schedules

SETTINGS: dict[type[tts.SparseEvolution], dict[str, int]] = {
    tts.SET: {"every": 4},
    tts.RigL: {"total_steps": 20, "every": 4},
    tts.MEST: {"total_steps": 20, "every": 4},
    tts.SparseMomentum: {"total_steps": 20, "every": 4},
}
each_method = pytest.mark.parametrize("method", SETTINGS)


def make(
    method: type[tts.SparseEvolution],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    **more: Any,
) -> tts.SparseEvolution:
    evolution: tts.SparseEvolution = method(model, optimizer, **SETTINGS[method], **more)
    return evolution


@pytest.mark.parametrize(
    ("method", "prune", "regrow", "fraction", "stop", "redistribute"),
    [
        (
            tts.SET,
            rules.SignSplitMagnitude(),
            rules.RandomRegrow("set_normal"),
            schedules.Constant(0.3),
            None,
            None,
        ),
        (
            tts.RigL,
            rules.MagnitudePrune(),
            rules.GradientRegrow(),
            schedules.Cosine(0.3, 15),
            15,
            None,
        ),
        (
            tts.MEST,
            rules.MagnitudeGradientPrune(1.0),
            rules.RandomRegrow("zeros"),
            schedules.Linear(0.3, 15),
            15,
            None,
        ),
        (
            tts.SparseMomentum,
            rules.MagnitudePrune(),
            rules.MomentumRegrow(0.9, 10),
            schedules.Cosine(0.5, 20),
            None,
            rules.MomentumRedistribution(),
        ),
    ],
)
def test_settings_are_those_of_the_paper(
    method, prune, regrow, fraction, stop, redistribute
) -> None:
    model = network()
    made = make(method, model, sgd(model))
    assert isinstance(made, tts.SparseEvolution)
    assert (made.prune, made.regrow, made.fraction) == (prune, regrow, fraction)
    assert (made.stop, made.redistribute) == (stop, redistribute)
    assert made.every == 4
    assert made.shrink is None


def test_rigl_evolves_every_100_steps_unless_told_otherwise() -> None:
    model = network()
    assert tts.RigL(model, sgd(model), total_steps=1000).every == 100


@both_twins
@each_method
def test_methods_train_and_repeat(method, layer_type) -> None:
    results = []
    for _ in range(2):
        model = network(layer_type)
        optimizer = sgd(model)
        evolution = make(method, model, optimizer, exclude=["2"], generator=seeded(3))
        before = model[0].indices.clone()
        for step in range(20):
            train_step(model, optimizer, seed=step)
        assert len(evolution.history) == (4 if evolution.stop is None else 3)
        assert {layer.name for record in evolution.history for layer in record.layers} == {"0"}
        assert model[0].nnz == 72
        assert not torch.equal(model[0].indices, before)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


def _copied(run: tuple[Any, ...], method: type, folder: Path) -> tuple[Any, ...]:
    return copy.deepcopy(run)


def _pickled(run: tuple[Any, ...], method: type, folder: Path) -> tuple[Any, ...]:
    return tuple(pickle.loads(pickle.dumps(run)))


def _resumed(run: tuple[Any, ...], method: type, folder: Path) -> tuple[Any, ...]:
    model, optimizer, evolution = run
    path = tts.checkpoint.save(
        folder / "run.pt", model=model, optimizer=optimizer, evolution=evolution
    )
    model = network(seed=9)
    optimizer = sgd(model)
    evolution = make(method, model, optimizer, generator=seeded(9))
    tts.checkpoint.resume(path, model=model, optimizer=optimizer, evolution=evolution)
    return model, optimizer, evolution


@pytest.mark.parametrize("carry", [_copied, _pickled, _resumed])
@each_method
def test_what_is_copied_pickled_or_resumed_goes_on_alike(
    method, carry: Callable[..., tuple[Any, ...]], tmp_path: Path
) -> None:
    """Step 4 is the last before an evolution: what growth by gradient reads is carried, too."""
    model = network()
    optimizer = sgd(model)
    evolution = make(method, model, optimizer, generator=seeded(3))
    for step in range(4):
        train_step(model, optimizer, seed=step)
    other_model, other_optimizer, other = carry((model, optimizer, evolution), method, tmp_path)
    assert type(other) is method
    for step in range(4, 12):
        train_step(model, optimizer, seed=step)
        train_step(other_model, other_optimizer, seed=step)
    assert other.history == evolution.history
    assert len(other.history) == 2
    assert same(everything(model, optimizer), everything(other_model, other_optimizer))


@pytest.mark.parametrize("method", [tts.RigL, tts.MEST])
@pytest.mark.parametrize("end", [0, 1.5, float("nan")])
def test_an_end_outside_the_training_is_refused(method, end: float) -> None:
    model = network()
    with pytest.raises(ValueError, match=r"`end` must lie in \(0, 1\]"):
        method(model, sgd(model), total_steps=100, every=10, end=end)


@pytest.mark.parametrize("method", [tts.RigL, tts.MEST, tts.SparseMomentum])
def test_a_training_of_no_steps_is_refused(method) -> None:
    model = network()
    with pytest.raises(ValueError, match="`total_steps` must be at least 1, got 0"):
        method(model, sgd(model), total_steps=0, every=10)
    with pytest.raises(TypeError, match="`total_steps` must be an int, got float"):
        method(model, sgd(model), total_steps=10.0, every=10)


@pytest.mark.parametrize("method", [tts.RigL, tts.MEST])
def test_an_end_that_is_no_number_is_refused(method) -> None:
    model = network()
    with pytest.raises(TypeError, match="`end` must be a number, got str"):
        method(model, sgd(model), total_steps=100, every=10, end="half")
