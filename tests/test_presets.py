"""Presets are the methods of their papers: rules, schedule, interval, end."""

import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd, train_step

import torch_truly_sparse as tts
from torch_truly_sparse.evolution import Constant

PRESETS = {
    "set_evolution": lambda m, o, **s: tts.set_evolution(m, o, every=4, **s),
    "rigl": lambda m, o, **s: tts.rigl(m, o, total_steps=20, every=4, **s),
    "mest": lambda m, o, **s: tts.mest(m, o, total_steps=20, every=4, **s),
    "sparse_momentum": lambda m, o, **s: tts.sparse_momentum(m, o, total_steps=20, every=4, **s),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "set_evolution",
            (tts.SignSplitMagnitude(), tts.RandomRegrow("set_normal"), Constant(0.3), None, None),
        ),
        ("rigl", (tts.MagnitudePrune(), tts.GradientRegrow(), tts.Cosine(0.3, 15), 15, None)),
        (
            "mest",
            (
                tts.MagnitudeGradientPrune(1.0),
                tts.RandomRegrow("zeros"),
                tts.Linear(0.3, 15),
                15,
                None,
            ),
        ),
        (
            "sparse_momentum",
            (
                tts.MagnitudePrune(),
                tts.MomentumRegrow(0.9, 10),
                tts.Cosine(0.5, 20),
                None,
                tts.MomentumRedistribution(),
            ),
        ),
    ],
)
def test_settings_are_those_of_the_paper(name: str, expected) -> None:
    model = network()
    made = PRESETS[name](model, sgd(model))
    assert (made.prune, made.regrow, made.fraction, made.stop, made.redistribute) == expected
    assert made.every == 4
    assert made.shrink is None


def test_rigl_evolves_every_100_steps_unless_told_otherwise() -> None:
    model = network()
    assert tts.rigl(model, sgd(model), total_steps=1000).every == 100


@both_twins
@pytest.mark.parametrize("name", PRESETS)
def test_presets_train_and_repeat(name: str, layer_type) -> None:
    results = []
    for _ in range(2):
        model = network(layer_type)
        optimizer = sgd(model)
        evolution = PRESETS[name](model, optimizer, exclude=["2"], generator=seeded(3))
        before = model[0].indices.clone()
        for step in range(20):
            train_step(model, optimizer, seed=step)
        assert len(evolution.history) == (4 if evolution.stop is None else 3)
        assert {layer.name for record in evolution.history for layer in record.layers} == {"0"}
        assert model[0].nnz == 72
        assert not torch.equal(model[0].indices, before)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])


@pytest.mark.parametrize("preset", [tts.rigl, tts.mest])
@pytest.mark.parametrize("end", [0, 1.5, float("nan")])
def test_an_end_outside_the_training_is_refused(preset, end: float) -> None:
    model = network()
    with pytest.raises(ValueError, match=r"`end` must lie in \(0, 1\]"):
        preset(model, sgd(model), total_steps=100, every=10, end=end)
