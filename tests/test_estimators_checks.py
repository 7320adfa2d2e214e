"""scikit-learn's own checks of estimators."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from torch_truly_sparse.estimators import TrulySparseClassifier, TrulySparseRegressor

# Small networks: what is checked does not depend on their size.
SMALL = {"n_estimators": 2, "hidden_units": 50, "random_state": 0}
STOCHASTIC = (
    "trained on random batches: a repeated sample falls into other batches than one of weight 2"
)
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": STOCHASTIC,
    "check_sample_weight_equivalence_on_sparse_data": STOCHASTIC,
}


@parametrize_with_checks(
    [TrulySparseClassifier(**SMALL), TrulySparseRegressor(**SMALL)],
    expected_failed_checks=lambda estimator: EXPECTED_FAILURES,
)
def test_scikit_learn_accepts_it(estimator, check):
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # some checks look for warnings that pytest made errors
        check(estimator)
