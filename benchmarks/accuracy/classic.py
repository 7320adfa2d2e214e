"""The classic ways to learn from wide tables: scikit-learn's, tuned inside the training part."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestCentroid
from sklearn.svm import SVC

Array = npt.NDArray[Any]

PENALTIES = (1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)  # C, for features scaled to a mean square of 1
COUNTS = (10, 20, 50, 100, 200, 500, 1000)
RIDGES = (0.003, 0.03, 0.3, 3.0)
SHRINKAGES = (None, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0)
INNER_FOLDS = 5


class Fitted(Protocol):
    """What a method gives back: it predicts, and knows how many weights it has."""

    weights: int

    def predict(self, features: Array) -> Array:
        """Return the class number of each sample."""
        ...  # pragma: no cover


@dataclass
class Prediction:
    """A fitted method, as a function."""

    decide: Callable[[Array], Array]
    weights: int

    def predict(self, features: Array) -> Array:
        """Return the class number of each sample."""
        return self.decide(features)


def inner_folds(labels: Array, seed: int) -> list[tuple[Array, Array]]:
    """Cut a training part into at most 5 stratified folds, fewer where a class is smaller."""
    smallest = int(np.bincount(labels)[np.unique(labels)].min())
    folds = StratifiedKFold(min(INNER_FOLDS, max(2, smallest)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return list(folds.split(labels, labels))


def standardised(train: Array, other: Array) -> tuple[Array, Array]:
    """Scale both tables with the mean and the deviation of the first."""
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    return (train - mean) / deviation, (other - mean) / deviation


def robust(train: Array, other: Array) -> tuple[Array, Array]:
    """Scale both tables with the median and the quartiles of the first, clipped smoothly at 3."""
    low, middle, high = np.quantile(train, (0.25, 0.5, 0.75), axis=0)
    scale = (high - low) / 1.349
    scale = np.where(scale > 0, scale, train.std(axis=0))
    scale = np.where(scale > 0, scale, np.inf)

    def clipped(table: Array) -> Array:
        z = (table - middle) / scale
        return np.asarray(z / np.sqrt(1 + (z / 3) ** 2))

    return clipped(train), clipped(other)


def variances(table: Array, labels: Array) -> tuple[Array, Array]:
    """Return the mean squares between and within the classes, for each feature."""
    classes, numbers = np.unique(labels, return_inverse=True)
    inside = np.eye(len(classes))[numbers]
    centred = table - table.mean(axis=0)
    explained = ((inside.T @ centred) ** 2 / inside.sum(axis=0)[:, None]).sum(axis=0)
    rest = np.maximum((centred**2).sum(axis=0) - explained, 0)
    return explained / max(len(classes) - 1, 1), rest / max(len(labels) - len(classes), 1)


def f_statistic(table: Array, labels: Array) -> Array:
    """Return F of the analysis of variance between classes for each feature; 0 if constant."""
    between, within = variances(table, labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        finite: Array = np.nan_to_num(between / within, nan=0.0, posinf=1e9)
    return finite


def moderated_f(table: Array, labels: Array) -> Array:
    """Return F with the median of the variances within classes added below; 0 if constant."""
    between, within = variances(table, labels)
    varied = within[between + within > 0]
    middle = np.median(varied) if len(varied) else 1.0
    moderated: Array = between / np.maximum(within + middle, 1e-12)
    return moderated


# A candidate answers for all its settings at once: settings -> predictions for `other`.
Candidates = Callable[[Array, Array, Array], Iterable[tuple[Any, Array]]]


def choose(features: Array, labels: Array, seed: int, candidates: Candidates) -> Any:
    """Return the settings with the best accuracy in inner cross-validation, the first of equals."""
    correct: dict[Any, float] = {}
    for train, held in inner_folds(labels, seed):
        for setting, predicted in candidates(features[train], labels[train], features[held]):
            hits = float((predicted == labels[held]).sum())
            correct[setting] = correct.get(setting, 0.0) + hits
    return max(correct, key=lambda setting: correct[setting])


def fit_svm(features: Array, labels: Array, seed: int, counts: Sequence[int] = ()) -> Prediction:
    """Fit a linear SVM on all features, or on the `counts` of the largest F; C tuned inside."""
    features = features.astype(np.float64)
    counts = [count for count in counts if count < features.shape[1]] or [features.shape[1]]

    def candidates(train: Array, known: Array, other: Array) -> Iterable[tuple[Any, Array]]:
        train, other = standardised(train, other)
        order = np.argsort(-f_statistic(train, known), kind="stable")
        for count in counts:
            best = order[:count] if count < train.shape[1] else slice(None)
            a, b = train[:, best], other[:, best]
            inner, cross = a @ a.T / count, b @ a.T / count
            for penalty in PENALTIES:
                for weight in (None, "balanced"):
                    model = fit_quietly(svm(penalty, weight, len(known)), inner, known)
                    yield (count, penalty, weight), model.predict(cross)

    count, penalty, weight = choose(features, labels, seed, candidates)
    scaled, _ = standardised(features, features[:1])
    best = np.argsort(-f_statistic(scaled, labels), kind="stable")[:count]
    chosen = scaled[:, best]
    model = fit_quietly(svm(penalty, weight, len(labels)), chosen @ chosen.T / count, labels)

    def decide(table: Array) -> Array:
        other = standardised(features, table.astype(np.float64))[1][:, best]
        return np.asarray(model.predict(other @ chosen.T / count))

    pairs = len(np.unique(labels)) * (len(np.unique(labels)) - 1) // 2
    return Prediction(decide, count * pairs)


def svm(penalty: float, weight: str | None, samples: int) -> SVC:
    """Make a linear SVM on inner products.

    With more than 1000 samples that no plane separates, a large C takes minutes to converge; the
    search then ends after 20,000 steps, as it would for a user who lost patience.
    """
    steps = -1 if samples <= 1000 else 20_000
    return SVC(kernel="precomputed", C=penalty, class_weight=weight, max_iter=steps)


def fit_two_phase(features: Array, labels: Array, seed: int) -> Prediction:
    """Select features by F, then fit a linear SVM; their number and C tuned inside."""
    return fit_svm(features, labels, seed, COUNTS)


def fit_logistic(features: Array, labels: Array, seed: int) -> Prediction:
    """Fit an L2 logistic regression on standardised features; C and class weights tuned inside.

    Computed in the coordinates of the samples, which gives the same model as with all features.
    """
    features = features.astype(np.float64)

    def model(penalty: float, weight: str | None) -> Any:
        return LogisticRegression(C=penalty, class_weight=weight, max_iter=1000, tol=1e-3)

    def coordinates(train: Array, other: Array) -> tuple[Array, Array]:
        train, other = standardised(train, other)
        if train.shape[1] <= train.shape[0]:
            return train, other
        u, s, vt = np.linalg.svd(train, full_matrices=False)
        scale = np.sqrt(train.shape[1])
        return u * s / scale, other @ vt.T / scale

    def candidates(train: Array, known: Array, other: Array) -> Iterable[tuple[Any, Array]]:
        a, b = coordinates(train, other)
        for penalty in PENALTIES:
            for weight in (None, "balanced"):
                yield (penalty, weight), fit_quietly(model(penalty, weight), a, known).predict(b)

    penalty, weight = choose(features, labels, seed, candidates)
    inside, _ = coordinates(features, features[:1])
    fitted = fit_quietly(model(penalty, weight), inside, labels)

    def decide(table: Array) -> Array:
        return np.asarray(fitted.predict(coordinates(features, table.astype(np.float64))[1]))

    outputs = len(np.unique(labels)) if len(np.unique(labels)) > 2 else 1
    return Prediction(decide, features.shape[1] * outputs)


def fit_forest(features: Array, labels: Array, seed: int) -> Prediction:
    """Fit a random forest of 500 trees, with scikit-learn's defaults and balanced classes."""
    forest = RandomForestClassifier(500, class_weight="balanced", random_state=seed)
    forest.fit(features, labels)
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    return Prediction(lambda table: np.asarray(forest.predict(table)), nodes)


def fit_centroids(features: Array, labels: Array, seed: int) -> Prediction:
    """Fit nearest shrunken centroids (Tibshirani et al. 2002); the shrinkage tuned inside."""
    features = features.astype(np.float64)

    def model(shrinkage: float | None, train: Array, known: Array) -> Any:
        varied = train.std(axis=0) > 0  # it refuses features that are constant in every class
        noisy = train + 0.0
        noisy[:, ~varied] = 0.0
        return fit_quietly(NearestCentroid(shrink_threshold=shrinkage), noisy, known)

    def candidates(train: Array, known: Array, other: Array) -> Iterable[tuple[Any, Array]]:
        train, other = standardised(train, other)
        for shrinkage in SHRINKAGES:
            yield shrinkage, model(shrinkage, train, known).predict(other)

    shrinkage = choose(features, labels, seed, candidates)
    fitted = model(shrinkage, standardised(features, features[:1])[0], labels)

    def decide(table: Array) -> Array:
        return np.asarray(fitted.predict(standardised(features, table.astype(np.float64))[1]))

    return Prediction(decide, features.shape[1] * len(np.unique(labels)))


def fit_ridge(features: Array, labels: Array, seed: int) -> Prediction:
    """Fit a balanced one-against-rest ridge: the estimators' scaling and loss, without a network.

    Robustly scaled and clipped features, weighted with F^0.5; the ridge tuned inside.
    """
    features = features.astype(np.float64)

    def prepared(train: Array, known: Array, other: Array) -> tuple[Array, Array]:
        train, other = robust(train, other)
        weight = np.maximum(moderated_f(train, known), 0.1) ** 0.5
        weight = weight / np.sqrt((weight**2).sum())
        return train * weight, other * weight

    def scores(train: Array, known: Array, other: Array, ridge: float) -> Array:
        inner, cross = train @ train.T + 1, other @ train.T + 1
        columns = []
        for label in np.unique(known):
            inside = known == label
            share = np.where(inside, 1 / inside.sum(), 1 / max((~inside).sum(), 1)) * len(known) / 2
            system = inner + ridge * np.diag(1 / share)
            columns.append(cross @ np.linalg.solve(system, np.where(inside, 1.0, -1.0)))
        best: Array = np.unique(known)[np.stack(columns, axis=1).argmax(axis=1)]
        return best

    def candidates(train: Array, known: Array, other: Array) -> Iterable[tuple[Any, Array]]:
        a, b = prepared(train, known, other)
        for ridge in RIDGES:
            yield ridge, scores(a, known, b, ridge)

    ridge = choose(features, labels, seed, candidates)

    def decide(table: Array) -> Array:
        a, b = prepared(features, labels, table.astype(np.float64))
        return scores(a, labels, b, ridge)

    return Prediction(decide, features.shape[1] * len(np.unique(labels)))


def fit_quietly(model: Any, features: Array, labels: Array) -> Any:
    """Fit without the warnings of models at the edge of their grid, which are not chosen then."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return model.fit(features, labels)
