"""Feature ranking: what it finds, what it must not find, and how it is shown."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.exceptions import NotFittedError

from torch_truly_sparse.estimators import TrulySparseClassifier, rank_features

QUICK = {"n_estimators": 4, "hidden_units": 200, "random_state": 0}


def with_permuted_copies(samples=100, features=600, informative=60, seed=0):
    """A table whose last third are columns of the first part, each with its samples shuffled."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    X = rng.normal(size=(samples, features))
    X[:, :informative] += rng.normal(size=(3, informative))[y]
    copies = rng.choice(features, features // 2, replace=False)
    shuffled = np.stack([rng.permutation(X[:, column]) for column in copies], axis=1)
    return np.concatenate([X, shuffled], axis=1), y


def test_permuted_copies_do_not_rank_high():
    X, y = with_permuted_copies()
    ranking = rank_features(TrulySparseClassifier(**QUICK).fit(X, y), top=50)
    permuted = int((ranking.columns[:50] >= 600).sum())
    assert permuted <= 5, "chance: 17"


def test_features_that_matter_only_together_are_found():
    """y is the sign of a product: each factor alone says nothing about it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1500, 40))
    y = (X[:, 3] * X[:, 17] > 0).astype(int)
    alone = [abs(np.corrcoef(X[:, column], y)[0, 1]) for column in (3, 17)]
    assert max(alone) < 0.1
    classifier = TrulySparseClassifier(**QUICK, input_dropout=0.1).fit(X, y)
    assert set(rank_features(classifier).columns[:2]) == {3, 17}


def test_the_table_names_features_and_counts_members():
    X, y = with_permuted_copies(60, 100, 10)
    classifier = TrulySparseClassifier(**QUICK).fit(X, y)
    names = [f"g{number}" for number in range(X.shape[1])]
    ranking = rank_features(classifier, names, top=5)
    assert len(ranking) == X.shape[1]
    assert (np.diff(ranking.importance) <= 0).all()
    np.testing.assert_allclose(ranking.importance.sum(), 1, atol=1e-5)
    assert [names[column] for column in ranking.columns] == ranking.names.tolist()
    counted = np.zeros(X.shape[1])
    for member in classifier.member_importances_:
        counted[np.argsort(-member, kind="stable")[:5]] += 1 / 4
    np.testing.assert_allclose(ranking.frequency, counted[ranking.columns])
    lines = str(ranking).splitlines()
    assert len(lines) == 6
    assert ranking.names[0] in lines[1]


def test_it_becomes_a_data_frame():
    pytest.importorskip("pandas")
    X, y = with_permuted_copies(60, 100, 10)
    frame = rank_features(TrulySparseClassifier(**QUICK).fit(X, y)).to_frame()
    assert frame.columns.tolist() == ["feature", "column", "importance", "frequency"]
    assert frame.index[0] == 1


def test_bad_names_and_unfitted_estimators_are_refused():
    X, y = with_permuted_copies(60, 100, 10)
    with pytest.raises(NotFittedError):
        rank_features(TrulySparseClassifier())
    classifier = TrulySparseClassifier(**QUICK, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="`names` must have a name for each of the 150"):
        rank_features(classifier, ["a", "b"])
    with pytest.raises(ValueError, match="`top`"):
        rank_features(classifier, top=0)
