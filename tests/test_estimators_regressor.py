"""The regressor where its users meet it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from wide_tables import QUICK, wide

from torch_truly_sparse.estimators import TrulySparseClassifier, TrulySparseRegressor


def test_it_has_the_parameters_of_the_classifier_but_for_class_weight():
    ours, theirs = TrulySparseRegressor().get_params(), TrulySparseClassifier().get_params()
    assert theirs.pop("class_weight") == "balanced"
    assert ours == theirs


def test_the_regressor_learns_a_line_and_several_targets():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(240, 60))
    y = np.stack([X[:, :10].sum(axis=1), 1000 + 50 * X[:, 10:20].sum(axis=1)], axis=1)
    settings = QUICK | {"max_epochs": 40, "input_dropout": 0.2}
    both = TrulySparseRegressor(**settings).fit(X[:200], y[:200])
    assert both.predict(X[200:]).shape == (40, 2)
    assert both.score(X[200:], y[200:]) > 0.6
    one = TrulySparseRegressor(**settings).fit(X[:200], y[:200, 1])
    assert one.score(X[200:], y[200:, 1]) > 0.6
    assert set(np.argsort(-one.feature_importances_)[:10]) == set(range(10, 20))


def test_a_constant_target_is_predicted():
    X, _ = wide()
    np.testing.assert_allclose(
        TrulySparseRegressor(**QUICK).fit(X, np.full(60, 7.0)).predict(X), 7.0, atol=1e-4
    )
