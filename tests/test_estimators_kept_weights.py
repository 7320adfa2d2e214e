"""Which weights an estimator keeps: the last, the mean of the last epochs, the best on held-out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from torch import nn
from wide_tables import wide

from torch_truly_sparse.estimators import Recipe, TrulySparseClassifier, TrulySparseRegressor
from torch_truly_sparse.estimators.kept_weights import BestWeights, MeanWeights, hold_out

QUICK = {"n_estimators": 2, "hidden_units": 50, "max_epochs": 20, "random_state": 0}


def network(value: float) -> nn.Linear:
    made = nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def set_to(made: nn.Linear, value: float) -> None:
    made.load_state_dict(network(value).state_dict())


def test_the_mean_is_over_the_last_epochs_only() -> None:
    made = network(0)
    kept = MeanWeights(made, first=2)
    for epoch, value in enumerate((100.0, 100.0, 1.0, 2.0, 6.0)):
        set_to(made, value)
        assert not kept.after_epoch(epoch)
    kept.finish()
    assert all(bool((parameter == 3).all()) for parameter in made.parameters())


def test_a_training_that_ends_before_the_mean_begins_keeps_its_weights() -> None:
    made = network(5)
    kept = MeanWeights(made, first=2)
    kept.after_epoch(0)
    kept.finish()
    assert bool((made.weight == 5).all())


def test_the_best_epoch_is_kept_and_patience_ends_the_training() -> None:
    made = network(0)
    losses = iter((3.0, 1.0, 2.0, 1.0, 4.0, 0.5))
    kept = BestWeights(made, lambda: next(losses), patience=3)
    ended = []
    for epoch in range(5):
        set_to(made, epoch)
        ended.append(kept.after_epoch(epoch))
    assert ended == [False, False, False, False, True]
    kept.finish()
    assert bool((made.weight == 1).all())  # the first of two equal ones


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    made = network(7)
    kept = BestWeights(made, lambda: float("nan"), patience=9)
    assert not kept.after_epoch(0)
    kept.finish()
    assert bool((made.weight == 7).all())


@pytest.mark.parametrize(("samples", "share", "count"), [(100, 0.1, 10), (7, 0.01, 1), (3, 0.9, 2)])
def test_held_out_samples_are_evenly_of_all_classes(samples: int, share: float, count: int) -> None:
    labels = torch.arange(samples) % 2
    targets = nn.functional.one_hot(labels, 2).float()
    trained, held = hold_out(targets, share, torch.Generator().manual_seed(0))
    assert len(held) == count
    assert sorted([*trained.tolist(), *held.tolist()]) == list(range(samples))
    assert trained.tolist() == sorted(trained.tolist())
    if count > 1:
        assert abs(int(labels[held].sum()) * 2 - count) <= 1
    again, _ = hold_out(targets, share, torch.Generator().manual_seed(0))
    assert torch.equal(trained, again)


def test_one_sample_cannot_be_held_out() -> None:
    with pytest.raises(ValueError, match="`held_out` needs 2 samples or more, got 1"):
        hold_out(torch.ones(1, 2), 0.5, torch.Generator())


@pytest.mark.parametrize("evolution", ["set", "gradient", None])
@pytest.mark.parametrize("recipe", [{"weight_average": 0.25}, {"held_out": 0.2, "patience": 3}])
def test_the_classifier_learns_with_each(recipe, evolution) -> None:
    X, y = wide(120)
    settings = QUICK | {"evolution": evolution}
    plain = TrulySparseClassifier(**settings).fit(X[:60], y[:60])
    found = TrulySparseClassifier(**settings, recipe=Recipe(**recipe)).fit(X[:60], y[:60])
    assert found.score(X[60:], y[60:]) > 0.7
    assert not np.array_equal(found.decision_function(X), plain.decision_function(X))
    assert found.n_iter_ <= 20
    assert found.n_weights_ == plain.n_weights_


def test_the_mean_is_the_mean_of_what_the_epochs_left(monkeypatch) -> None:
    X, y = wide(60)
    seen = []
    original = MeanWeights.after_epoch

    def noting(self, epoch):
        seen.append(self._network.head.detach().double().clone())
        return original(self, epoch)

    monkeypatch.setattr(MeanWeights, "after_epoch", noting)
    found = TrulySparseClassifier(**QUICK, recipe=Recipe(weight_average=0.2)).fit(X, y)
    assert len(seen) == 20
    torch.testing.assert_close(found.ensemble_.head.double(), sum(seen[-4:]) / 4)


def test_held_out_samples_are_not_trained_on(monkeypatch) -> None:
    """Their labels change nothing but which epoch is kept."""
    X, y = wide(60)
    parts = torch.arange(48), torch.arange(48, 60)
    monkeypatch.setattr("torch_truly_sparse.estimators.training.hold_out", lambda *_: parts)
    recipe = Recipe(held_out=0.2, patience=20, feature_weight=0.0)
    classifier = TrulySparseClassifier(**QUICK, recipe=recipe, class_weight=None)
    first, second = np.unique(y)
    curves = []
    for turned in (slice(0, 0), slice(48, 60), slice(0, 1)):
        labels = y.copy()
        labels[turned] = np.where(y[turned] == first, second, first)
        curves.append(classifier.fit(X, labels).loss_curve_)
    assert len(curves[0]) == 20
    assert curves[0] == curves[1] != curves[2]


def test_the_regressor_takes_them_too() -> None:
    X, _ = wide(60)
    y = X[:, 0] - X[:, 1]
    for recipe in (Recipe(weight_average=0.25), Recipe(held_out=0.2)):
        assert np.isfinite(TrulySparseRegressor(**QUICK, recipe=recipe).fit(X, y).predict(X)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight_average": 0.5}, "`weight_average` \\+ `evolve_until` must be at most 1"),
        ({"weight_average": 0.1, "held_out": 0.1}, "exclude each other"),
        ({"held_out": 1.0}, "`held_out` must be below 1"),
        ({"held_out": -0.1}, "`held_out` must lie in"),
        ({"weight_average": 2.0}, "`weight_average` must lie in"),
        ({"patience": 0}, "`patience` must be at least 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**change)
