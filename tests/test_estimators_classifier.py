"""The classifier where its users meet it: what it learns, accepts, refuses and gives back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from wide_tables import QUICK, wide

import torch_truly_sparse as tts
from torch_truly_sparse.estimators import Recipe, TrulySparseClassifier


def test_it_learns_from_few_samples_with_many_features():
    X, y = wide(120, 2000, 40, classes=3)
    classifier = TrulySparseClassifier(**QUICK).fit(X[:60], y[:60])
    assert classifier.score(X[60:], y[60:]) > 0.9
    assert classifier.classes_.tolist() == ["healthy", "ill", "unclear"]
    assert classifier.n_iter_ == len(classifier.loss_curve_) == 15


@pytest.mark.parametrize("evolution", ["gradient", "set"])
def test_evolution_changes_the_topology_and_keeps_the_number_of_weights(evolution):
    X, y = wide()
    still = TrulySparseClassifier(**QUICK, evolution=None).fit(X, y)
    moved = TrulySparseClassifier(**QUICK, evolution=evolution).fit(X, y)
    assert moved.n_weights_ == still.n_weights_
    first, second = (c.ensemble_.first.topology for c in (still, moved))
    assert first.fingerprint != second.fingerprint


def test_growth_by_gradient_connects_more_of_the_informative_features():
    X, y = wide(80, 400, 20)
    recipe = Recipe(evolve_every=2)
    found = TrulySparseClassifier(**QUICK, evolution="gradient", recipe=recipe).fit(X, y)
    fan_out = found.ensemble_.first.topology.fan_out().float()
    assert fan_out[:20].mean() > 1.5 * fan_out[20:].mean()


@pytest.mark.parametrize("change", ["scale", "shift", "monotone units"])
def test_units_of_measurement_do_not_matter(change):
    X, y = wide()
    changed = {
        "scale": X * np.geomspace(1e-4, 1e6, X.shape[1]),
        "shift": X + 1e4,
        "monotone units": X * 86_000 + 5,
    }[change]
    first = TrulySparseClassifier(**QUICK).fit(X, y).decision_function(X)
    second = TrulySparseClassifier(**QUICK).fit(changed, y).decision_function(changed)
    np.testing.assert_allclose(first, second, atol=2e-3)


def test_an_outlier_counts_no_more_than_the_clip():
    X, y = wide()
    far, further = X.copy(), X.copy()
    far[0, 0], further[0, 0] = 1e3, 1e30
    first = TrulySparseClassifier(**QUICK).fit(far, y).decision_function(X[1:])
    second = TrulySparseClassifier(**QUICK).fit(further, y).decision_function(X[1:])
    np.testing.assert_allclose(first, second, atol=0.05)


def test_probabilities_sum_to_1_and_agree_with_the_prediction():
    X, y = wide(classes=3)
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    probabilities = classifier.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (classifier.classes_[probabilities.argmax(axis=1)] == classifier.predict(X)).all()


def test_probabilities_are_those_of_the_fit_whatever_is_set_later():
    X, y = wide(classes=3)
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    before = classifier.predict_proba(X)
    classifier.set_params(recipe=Recipe(temperature=5.0))
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


def test_cross_entropy_learns_the_logarithms_of_its_probabilities():
    X, y = wide()
    recipe = Recipe(loss="cross_entropy", temperature=9.0)  # which it has no use for
    classifier = TrulySparseClassifier(**QUICK, recipe=recipe).fit(X, y)
    odds = np.log(classifier.predict_proba(X)[:, 1] / classifier.predict_proba(X)[:, 0])
    np.testing.assert_allclose(odds, 2 * classifier.decision_function(X), atol=1e-6)


def test_the_decision_of_two_classes_has_one_column_whose_sign_decides():
    X, y = wide()
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    decision = classifier.decision_function(X)
    assert decision.shape == (len(X),)
    assert (classifier.classes_[(decision > 0).astype(int)] == classifier.predict(X)).all()


@pytest.mark.parametrize("evolution", [None, "gradient"])
def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads(evolution):
    X, y = wide(80, 1000, classes=3)
    settings = QUICK | {"evolution": evolution, "hidden_units": 300}
    alone = TrulySparseClassifier(**settings, n_jobs=1).fit(X, y)
    together = TrulySparseClassifier(**settings, n_jobs=2).fit(X, y)
    np.testing.assert_array_equal(alone.decision_function(X), together.decision_function(X))
    np.testing.assert_array_equal(alone.feature_importances_, together.feature_importances_)


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    X, y = wide()
    TrulySparseClassifier(**QUICK, n_jobs=2 if before == 1 else 1).fit(X, y).predict(X)
    assert torch.get_num_threads() == before


def test_a_global_seed_and_the_default_dtype_have_no_say():
    X, y = wide()
    torch.manual_seed(1)
    first = TrulySparseClassifier(**QUICK).fit(X, y).decision_function(X)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        second = TrulySparseClassifier(**QUICK).fit(X, y).decision_function(X)
    finally:
        torch.set_default_dtype(default)
    np.testing.assert_array_equal(first, second)
    assert torch.equal(state, torch.get_rng_state())


def test_members_are_plain_modules_whose_mean_decides():
    X, y = wide(classes=3)
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    members = classifier.members()
    assert len(members) == 2
    assert [type(part) for part in members[0]][1:] == [
        tts.TrulySparseLinear,
        torch.nn.ReLU,
        torch.nn.Linear,
    ]
    outputs = torch.stack([member(torch.from_numpy(X)) for member in members]).mean(dim=0)
    np.testing.assert_allclose(outputs.detach().numpy(), classifier.decision_function(X), atol=1e-5)
    before = classifier.decision_function(X)
    with torch.no_grad():
        for parameter in members[0].parameters():
            parameter.zero_()
    np.testing.assert_array_equal(classifier.decision_function(X), before)


def test_pickle_keeps_the_bits_and_the_fitted_estimator_is_small():
    X, y = wide(60, 3000)
    classifier = TrulySparseClassifier(random_state=0, max_epochs=2, n_estimators=4).fit(X, y)
    saved = pickle.dumps(classifier)
    again = pickle.loads(saved)
    np.testing.assert_array_equal(again.predict_proba(X), classifier.predict_proba(X))
    # 12 bytes a weight (value, row, column), and a few numbers for each feature and unit.
    assert len(saved) < 14 * classifier.n_weights_ + 60 * 3000 + 30 * 4 * 1000


def test_a_dense_first_layer_would_be_far_larger():
    X, y = wide(60, 3000)
    classifier = TrulySparseClassifier(random_state=0, max_epochs=1, n_estimators=2).fit(X, y)
    assert classifier.n_weights_ < 0.01 * 2 * 3000 * 1000


# -- weights ---------------------------------------------------------------------------------------


def test_a_sample_of_weight_0_does_not_count():
    X, y = wide()
    noisy = np.concatenate([X, 100 * X[:5]])
    labels = np.concatenate([y, ["unheard of"] * 5])
    weights = np.r_[np.ones(60), np.zeros(5)]
    alone = TrulySparseClassifier(**QUICK).fit(X, y)
    beside = TrulySparseClassifier(**QUICK).fit(noisy, labels, sample_weight=weights)
    assert (beside.predict(X) == alone.predict(X)).all()


def test_balanced_classes_find_the_rare_one():
    X, y = wide(200, 300, 8, seed=3)
    rare = np.flatnonzero(y == "ill")[:8]
    kept = np.sort(np.r_[np.flatnonzero(y == "healthy"), rare])
    test = np.setdiff1d(np.flatnonzero(y == "ill"), rare)
    X[:, :8] *= 0.6

    def found(class_weight):
        classifier = TrulySparseClassifier(**QUICK, class_weight=class_weight)
        return (classifier.fit(X[kept], y[kept]).predict(X[test]) == "ill").mean()

    assert found("balanced") > found(None)
    assert found({"healthy": 1, "ill": 20}) > found(None)


@pytest.mark.parametrize("weights", [[1.0] * 59 + [-1.0], [0.0] * 60, [1.0] * 59, [np.nan] * 60])
def test_bad_weights_are_refused(weights):
    X, y = wide()
    with pytest.raises(ValueError, match=r"[Ss]ample.weight"):
        TrulySparseClassifier(**QUICK).fit(X, y, sample_weight=weights)


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_estimators", 0),
        ("hidden_units", 0),
        ("epsilon", -1.0),
        ("epsilon", float("nan")),
        ("evolution", "rigl"),
        ("max_epochs", 0),
        ("batch_size", 0),
        ("batch_size", "large"),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("input_dropout", 1.0),
        ("input_dropout", 0.999),
        ("class_weight", "even"),
        ("missing", "zero"),
        ("n_jobs", 0),
    ],
)
def test_a_parameter_out_of_range_is_named(name, value):
    X, y = wide()
    with pytest.raises(ValueError, match=f"`{name}`"):
        TrulySparseClassifier(**{**QUICK, name: value}).fit(X, y)


@pytest.mark.parametrize(("name", "value"), [("n_estimators", 2.5), ("recipe", {"clip": 3})])
def test_a_parameter_of_another_type_is_named(name, value):
    X, y = wide()
    with pytest.raises(TypeError, match=f"`{name}`"):
        TrulySparseClassifier(**{**QUICK, name: value}).fit(X, y)


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "hinge"},
        {"clip": 0.0},
        {"clip": float("nan")},
        {"dropout": 1.0},
        {"fraction": 1.5},
        {"temperature": 0.0},
        {"evolve_every": 0},
        {"weight_decay": -1.0},
    ],
)
def test_a_recipe_out_of_range_is_refused(change):
    with pytest.raises(ValueError, match=f"`{next(iter(change))}`"):
        Recipe(**change)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(loss="cross_entropy", label_smoothing=0.1),
        Recipe(dropout=0.3),
        Recipe(clip=float("inf"), feature_weight=0.0),
    ],
)
def test_other_recipes_learn_too(recipe):
    X, y = wide(120)
    classifier = TrulySparseClassifier(**QUICK, recipe=recipe).fit(X[:60], y[:60])
    assert classifier.score(X[60:], y[60:]) > 0.7


def test_a_training_that_diverges_is_an_error_and_leaves_the_earlier_fit():
    X, y = wide()
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    before = classifier.decision_function(X)
    classifier.set_params(learning_rate=1e30)
    with pytest.raises(ValueError, match="lower `learning_rate`"):
        classifier.fit(X[:, :100], y)
    np.testing.assert_array_equal(classifier.decision_function(X), before)


def test_verbose_shows_a_progress_bar(capsys):
    pytest.importorskip("tqdm")
    X, y = wide()
    TrulySparseClassifier(**QUICK, verbose=1).fit(X, y)
    assert "TrulySparseClassifier: 100%" in capsys.readouterr().err


# -- company ---------------------------------------------------------------------------------------


def test_it_works_inside_what_scikit_learn_offers():
    X, y = wide(80)
    quick = TrulySparseClassifier(**QUICK)
    pipeline = make_pipeline(StandardScaler(), quick)
    assert cross_val_score(pipeline, X, y, cv=2, n_jobs=2).mean() > 0.8
    search = GridSearchCV(quick, {"epsilon": [2.0, 5.0]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    calibrated = CalibratedClassifierCV(quick, cv=2).fit(X, y)
    np.testing.assert_allclose(calibrated.predict_proba(X).sum(axis=1), 1)


def test_it_selects_features():
    pd = pytest.importorskip("pandas")
    X, y = wide(80, 200, 20)
    frame = pd.DataFrame(X, columns=[f"g{number}" for number in range(200)])
    selector = SelectFromModel(TrulySparseClassifier(**QUICK), max_features=10, threshold=-np.inf)
    chosen = selector.fit(frame, y).get_feature_names_out()
    assert len(chosen) == 10
    assert sum(int(name[1:]) < 20 for name in chosen) >= 9
    assert selector.transform(frame).shape == (80, 10)
