"""Features chosen by a ranking: how well a linear SVM does on the first 10, 50 or 100 of each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import mutual_info_classif
from sklearn.svm import LinearSVC

from torch_truly_sparse.estimators import TrulySparseClassifier, rank_features

from .classic import Prediction, f_statistic, fit_quietly, fit_svm, standardised
from .methods import Method

Array = npt.NDArray[Any]
COUNTS = (10, 50, 100)


def by_network(features: Array, labels: Array, seed: int) -> Array:
    """Order the features by `rank_features` of the shipped classifier."""
    fitted = TrulySparseClassifier(random_state=seed).fit(features, labels)
    return rank_features(fitted).columns


def by_f(features: Array, labels: Array, seed: int) -> Array:
    """Order the features by F of the analysis of variance."""
    return _descending(f_statistic(standardised(features, features[:1])[0], labels))


def by_mutual_information(features: Array, labels: Array, seed: int) -> Array:
    """Order the features by scikit-learn's nearest-neighbour estimate of mutual information."""
    return _descending(mutual_info_classif(features, labels, random_state=seed))


def by_l1(features: Array, labels: Array, seed: int) -> Array:
    """Order the features by the absolute weights of a linear SVM with an L1 penalty, C = 1.

    Features of weight 0 follow in the order of F.
    """
    scaled = standardised(features, features[:1])[0]
    model = LinearSVC(penalty="l1", dual=False, max_iter=1000, random_state=seed)
    weights = np.abs(fit_quietly(model, scaled, labels).coef_).sum(axis=0)
    return np.lexsort((-f_statistic(scaled, labels), -weights))


def by_forest(features: Array, labels: Array, seed: int) -> Array:
    """Order the features by the impurity importances of a forest of 500 trees."""
    forest = RandomForestClassifier(500, class_weight="balanced", random_state=seed)
    return _descending(forest.fit(features, labels).feature_importances_)


RANKINGS: dict[str, Callable[[Array, Array, int], Array]] = {
    "rank_features": by_network,
    "F statistic": by_f,
    "mutual information": by_mutual_information,
    "L1 linear SVM": by_l1,
    "random forest": by_forest,
}


def fit_selected(
    features: Array, labels: Array, seed: int, *, ranking: str, count: int
) -> Prediction:
    """Rank the features on the training part, and fit a linear SVM on the first `count`."""
    order = _ranked(ranking, features.tobytes(), features.shape, labels.tobytes(), seed)
    kept = order[:count]
    fitted = fit_svm(features[:, kept], labels, seed)
    return Prediction(lambda table: fitted.predict(table[:, kept]), fitted.weights)


@functools.lru_cache(maxsize=1)
def _ranked(ranking: str, table: bytes, shape: tuple[int, int], labels: bytes, seed: int) -> Array:
    """Rank once for all counts; the arrays come as bytes, which can be compared."""
    features = np.frombuffer(table, dtype=np.float32).reshape(shape)
    return RANKINGS[ranking](features, np.frombuffer(labels, dtype=np.int64), seed)


def _descending(scores: Array) -> Array:
    return np.argsort(-scores, kind="stable")


SELECTIONS = {
    f"{ranking}, {count}": Method(
        f"{ranking}, {count}", fit_selected, {"ranking": ranking, "count": count}
    )
    for ranking in RANKINGS
    for count in COUNTS
}
