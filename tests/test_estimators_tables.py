"""What tables the estimators take, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from scipy import sparse
from wide_tables import QUICK, wide

from torch_truly_sparse.estimators import SparseEnsemble, TrulySparseClassifier
from torch_truly_sparse.estimators import rows as estimator_rows


def test_sparse_rows_give_what_their_dense_form_gives_uncentred():
    """The members of a fit on CSR, applied to the dense table, decide as the estimator does."""
    rng = np.random.default_rng(0)
    X = rng.poisson(0.2, size=(60, 400)).astype(float)
    y = np.arange(60) % 2
    X[:, :20] += rng.poisson(1.5, size=(60, 20)) * y[:, None]
    classifier = TrulySparseClassifier(**QUICK).fit(sparse.csr_matrix(X), y)
    assert classifier.score(sparse.csr_matrix(X), y) > 0.95
    np.testing.assert_allclose(
        classifier.decision_function(sparse.csr_array(X)),
        classifier.decision_function(X),
        atol=1e-5,
    )


@pytest.mark.parametrize("evolution", [None, "set"])
def test_a_layer_that_reads_only_the_features_that_occur_learns_the_same(evolution, monkeypatch):
    rng = np.random.default_rng(0)
    table = sparse.random_array((60, 2000), density=0.004, rng=rng, format="csr")
    y = np.arange(60) % 2
    widths = set()
    forward = SparseEnsemble.forward

    def watched(self, input, *rest):
        widths.add(input.shape[1])
        return forward(self, input, *rest)

    monkeypatch.setattr(SparseEnsemble, "forward", watched)
    settings = {**QUICK, "input_dropout": 0.0, "evolution": evolution}
    narrow = TrulySparseClassifier(**settings).fit(table, y)
    assert max(widths) <= 2000 // 8
    monkeypatch.setattr(estimator_rows, "NARROW", 2000)  # always all features
    whole = TrulySparseClassifier(**settings).fit(table, y)
    assert max(widths) == 2000
    np.testing.assert_array_equal(narrow.ensemble_.first.indices, whole.ensemble_.first.indices)
    np.testing.assert_allclose(
        narrow.decision_function(table), whole.decision_function(table), atol=1e-4
    )
    np.testing.assert_allclose(
        narrow.feature_importances_, whole.feature_importances_, atol=1e-4, rtol=1e-2
    )


def test_growth_by_gradient_sees_the_features_that_do_not_occur_in_a_batch():
    """It looks for connections of any feature, so its batches have all of them."""
    rng = np.random.default_rng(0)
    table = sparse.random_array((60, 2000), density=0.004, rng=rng, format="csr")
    y = np.arange(60) % 2
    settings = {**QUICK, "input_dropout": 0.0}
    grown = TrulySparseClassifier(**settings, evolution="gradient").fit(table, y)
    still = TrulySparseClassifier(**settings, evolution=None).fit(table, y)
    indices = grown.ensemble_.first.indices
    assert not torch.equal(indices, still.ensemble_.first.indices)
    silent = np.asarray((table != 0).sum(axis=0)).ravel() == 0
    strength = grown.ensemble_.first.topology.fan_out().numpy()
    assert strength[~silent].mean() > strength[silent].mean()


def test_a_sparse_table_is_never_made_dense():
    """Only batches of rows are."""
    rng = np.random.default_rng(0)
    rows, features = 40, 100_000
    table = sparse.random_array((rows, features), density=1e-3, rng=rng, format="csr")
    y = np.arange(rows) % 2

    class Refusing(sparse.csr_array):
        def toarray(self, *_, **__):
            raise AssertionError("the table was made dense")

    table = Refusing(table)
    classifier = TrulySparseClassifier(1, hidden_units=10, epsilon=0.5, max_epochs=1, batch_size=8)
    assert classifier.fit(table, y).predict(table[:5]).shape == (5,)


@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_duplicates_of_a_sparse_table_are_added_up(index_type):
    X, y = wide(40, 30)
    good = sparse.csr_matrix(np.round(X))
    half = sparse.csr_matrix(
        (
            np.repeat(good.data / 2, 2),
            np.repeat(good.indices, 2).astype(index_type),
            (2 * good.indptr).astype(index_type),
        ),
        shape=good.shape,
    )
    entries = half.nnz
    first = TrulySparseClassifier(**QUICK).fit(good, y).decision_function(good)
    second = TrulySparseClassifier(**QUICK).fit(half, y).decision_function(half)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert half.nnz == entries, "the caller's table was changed"


def test_float32_and_float64_tables_agree():
    X, y = wide()
    first = TrulySparseClassifier(**QUICK).fit(X, y).decision_function(X)
    second = TrulySparseClassifier(**QUICK).fit(X.astype(np.float32), y).decision_function(X)
    np.testing.assert_allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_give_their_names(library):
    frames = pytest.importorskip(library)
    X, y = wide(features=30)
    names = [f"gene {number}" for number in range(30)]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    classifier = TrulySparseClassifier(**QUICK).fit(frame, y)
    assert classifier.feature_names_in_.tolist() == names
    assert (classifier.predict(frame) == classifier.predict(frame)).all()
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame[names[::-1]])


def annotated(X, names):
    """What of an AnnData the estimators read."""
    return SimpleNamespace(X=X, var_names=names, n_obs=len(names))


@pytest.mark.parametrize("dense", [True, False])
def test_an_anndata_gives_its_matrix_and_its_names(dense):
    X, y = wide(features=30)
    names = [f"ENSG{number}" for number in range(30)]
    try:
        import anndata
        import pandas as pd

        table = anndata.AnnData(X if dense else sparse.csr_matrix(X), var=pd.DataFrame(index=names))
    except ImportError:
        table = annotated(X if dense else sparse.csr_matrix(X), names)
    classifier = TrulySparseClassifier(**QUICK).fit(table, y)
    assert classifier.feature_names_in_.tolist() == names
    assert classifier.predict(table).shape == (60,)
    with pytest.raises(ValueError, match="features that the estimator was fitted on"):
        classifier.predict(annotated(X, names[::-1]))


def test_missing_values_are_refused_with_the_remedy():
    X, y = wide()
    X[3, 7] = np.nan
    with pytest.raises(
        ValueError, match=r"1 values of `X` are missing.*sample 3, feature 7.*median"
    ):
        TrulySparseClassifier(**QUICK).fit(X, y)


def test_missing_values_become_the_median_of_the_training_samples():
    X, y = wide()
    holes = X.copy()
    holes[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    medians = np.nanmedian(holes, axis=0)
    filled = np.where(np.isnan(holes), medians, holes)
    classifier = TrulySparseClassifier(**QUICK, missing="median").fit(holes, y)
    assert classifier.score(holes, y) > 0.9
    np.testing.assert_allclose(
        classifier.decision_function(holes), classifier.decision_function(filled), atol=1e-5
    )


def test_constant_and_empty_features_do_no_harm():
    X, y = wide()
    X[:, 50] = 3.0
    X[:, 51] = 0.0
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    assert np.isfinite(classifier.decision_function(X)).all()
    assert classifier.feature_importances_[[50, 51]].tolist() == [0, 0]
    other = X.copy()
    other[:, 50] = -1e9
    np.testing.assert_array_equal(
        classifier.decision_function(other), classifier.decision_function(X)
    )


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_matrix, sparse.coo_array])
def test_a_fit_on_a_dense_table_predicts_the_same_from_a_sparse_one(form):
    X, y = wide()
    X += 3.0  # far from 0: the scaling centres
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    np.testing.assert_allclose(
        classifier.decision_function(form(X)), classifier.decision_function(X), atol=1e-5
    )


@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_indices_that_point_elsewhere_are_refused(form, part):
    X, y = wide()
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    forged = form(X)
    getattr(forged, part)[5] = 10**6
    with pytest.raises(ValueError, match=r"indices must be <|indptr"):
        classifier.fit(forged, y)
    with pytest.raises(ValueError, match=r"indices must be <|indptr"):
        classifier.predict(forged)


def test_a_missing_entry_of_a_sparse_table_counts_as_0():
    rng = np.random.default_rng(0)
    X = rng.poisson(0.5, size=(60, 100)).astype(float)
    y = np.arange(60) % 2
    X[:, :10] += 2 * y[:, None]
    holes, filled = sparse.csr_array(X), X.copy()
    holes.data[7] = np.nan
    row = int(np.searchsorted(holes.indptr, 7, side="right")) - 1
    filled[row, holes.indices[7]] = 0
    with pytest.raises(ValueError, match="1 values of `X` are missing"):
        TrulySparseClassifier(**QUICK).fit(holes, y)
    classifier = TrulySparseClassifier(**QUICK, missing="median").fit(holes, y)
    np.testing.assert_allclose(
        classifier.decision_function(holes),
        classifier.decision_function(sparse.csr_array(filled)),
        atol=1e-6,
    )


def test_a_fit_that_is_refused_leaves_the_earlier_fit():
    X, y = wide()
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    before = classifier.decision_function(X)
    with pytest.raises(ValueError, match="missing"):
        classifier.fit(np.full((60, 7), np.nan), y)
    np.testing.assert_array_equal(classifier.decision_function(X), before)
