"""The classic way to learn from a microarray: select features, then fit a linear SVM."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from microarray_study.data_set import DataSet
from microarray_study.settings import Settings
from microarray_study.splits import Split, inner_folds


def fit_classic(
    data: DataSet, split: Split, settings: Settings, seed: int, *, select: bool
) -> GridSearchCV:
    """Fit a linear SVM, with `select` on the features of the largest F statistic alone.

    How many features, and the SVM's C, are chosen by cross-validation inside the training part;
    scaling and selection are fitted anew in each of its folds, so that no validation or test sample
    has a say in them.
    """
    steps: list[tuple[str, Any]] = [("scale", StandardScaler())]
    grid: dict[str, list[Any]] = {"svm__C": list(settings.penalties)}
    if select:
        features = data.features.shape[1]
        counts = [count for count in settings.feature_counts if count <= features]
        steps.append(("select", SelectKBest(f_statistic)))
        grid["select__k"] = counts or [features]
    steps.append(("svm", SVC(kernel="linear")))

    features, labels = data.features[split.train], data.labels[split.train]
    folds = inner_folds(labels, settings.inner_folds, seed)
    if not folds:  # one sample a class: nothing to validate on, so the middle of each grid
        grid = {name: [values[len(values) // 2]] for name, values in grid.items()}
        everything = np.arange(len(labels))
        folds = [(everything, everything)]
    return GridSearchCV(Pipeline(steps), grid, cv=folds).fit(features, labels)


def f_statistic(features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the F statistic of each feature: 0, without a warning, where it is constant."""
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")
        scores, _ = f_classif(features, labels)
    finite: npt.NDArray[np.float64] = np.nan_to_num(scores, nan=0.0)  # infinite becomes largest
    return finite


def chosen(search: GridSearchCV) -> dict[str, float]:
    """Return what the cross-validation chose: `C`, and `k` where features were selected."""
    return {name.split("__")[1]: value for name, value in search.best_params_.items()}


def weight_count(search: GridSearchCV) -> int:
    """Count the coefficients of the fitted SVM."""
    return int(search.best_estimator_.named_steps["svm"].coef_.size)
