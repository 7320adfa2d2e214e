"""Schedules of the fraction: their formulas, their ends, their units."""

import math
from itertools import pairwise

import pytest
from evolving_network import network, sgd, train_step

import torch_truly_sparse as tts
from torch_truly_sparse import schedules


@pytest.mark.parametrize("step", [0, 1, 30, 50, 99, 100, 101, 10**6])
@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_formulas(fraction: float, step: int) -> None:
    over = step >= 100
    cosine = 0 if over else fraction / 2 * (1 + math.cos(math.pi * step / 100))
    linear = 0 if over else fraction * (100 - step) / 100
    assert schedules.Cosine(fraction, 100)(step) == pytest.approx(cosine, abs=1e-15)
    assert schedules.Linear(fraction, 100)(step) == pytest.approx(linear, abs=1e-15)
    assert schedules.Constant(fraction)(step) == fraction


@pytest.mark.parametrize("kind", [schedules.Cosine, schedules.Linear])
def test_fractions_fall_from_the_first_to_nothing(kind) -> None:
    values = [kind(0.4, 50)(step) for step in range(60)]
    assert values[0] == 0.4
    assert values[50:] == [0.0] * 10
    assert all(a > b for a, b in pairwise(values[:51]))


@pytest.mark.parametrize("epochs", [2, 5])
def test_by_epoch_each_evolution_gets_the_fraction_of_its_epoch(epochs: int) -> None:
    model = network()
    optimizer = sgd(model)
    schedule = schedules.ByEpoch(schedules.Linear(0.5, epochs), steps_per_epoch=3)
    evolution = tts.SparseEvolution(model, optimizer, fraction=schedule, every=3)
    for step in range(3 * 6):
        train_step(model, optimizer, seed=step)
    fractions = [record.fraction for record in evolution.history]
    assert fractions == [schedules.Linear(0.5, epochs)(epoch) for epoch in range(1, 6)]


def test_by_step_the_schedule_sees_optimizer_steps_and_stop_is_kept() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model, optimizer, fraction=schedules.Cosine(0.5, 20), every=3, stop=10
    )
    for step in range(15):
        train_step(model, optimizer, seed=step)
    fractions = [(record.step, record.fraction) for record in evolution.history]
    assert fractions == [(step, schedules.Cosine(0.5, 20)(step)) for step in (4, 7, 10)]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: schedules.Cosine(1.5, 10),
            ValueError,
            r"`fraction` must lie in \[0, 1\], got 1.5",
        ),
        (lambda: schedules.Cosine(math.nan, 10), ValueError, "`fraction` must lie in"),
        (lambda: schedules.Linear(-0.1, 10), ValueError, "`fraction` must lie in"),
        (lambda: schedules.Cosine(0.3, 0), ValueError, "`end` must be at least 1, got 0"),
        (lambda: schedules.Linear(0.3, 7.5), TypeError, "`end` must be an int, got float"),
        (lambda: schedules.Linear(0.3, True), TypeError, "`end` must be an int, got bool"),
        (
            lambda: schedules.ByEpoch(schedules.Linear(0.3, 5), 0),
            ValueError,
            "`steps_per_epoch` must be at",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()
