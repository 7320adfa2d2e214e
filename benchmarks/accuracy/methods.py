"""The methods of the tables: a name, settings, and how each is fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import classic, networks

EXPLORED = (  # what the search compared, one change of the shipped classifier each
    ("one member", {"n_estimators": 1}),
    ("4 members", {"n_estimators": 4}),
    ("16 members", {"n_estimators": 16}),
    ("no evolution", {"evolution": None}),
    ("evolution by gradient", {"evolution": "gradient"}),
    ("10 % replaced, not 30 %", {"recipe": {"fraction": 0.1}}),
    ("2000 hidden units", {"hidden_units": 2000}),
    ("500 hidden units", {"hidden_units": 500}),
    ("epsilon 2", {"epsilon": 2.0}),
    ("epsilon 10", {"epsilon": 10.0}),
    ("no input dropout", {"input_dropout": 0.0}),
    ("input dropout 0.3", {"input_dropout": 0.3}),
    ("input dropout 0.7", {"input_dropout": 0.7}),
    ("30 epochs", {"max_epochs": 30}),
    ("120 epochs", {"max_epochs": 120}),
    ("learning rate 0.001", {"learning_rate": 0.001}),
    ("learning rate 0.01", {"learning_rate": 0.01}),
    ("classes not balanced", {"class_weight": None}),
    ("cross-entropy", {"recipe": {"loss": "cross_entropy"}}),
    (
        "cross-entropy, smoothing 0.1",
        {"recipe": {"loss": "cross_entropy", "label_smoothing": 0.1}},
    ),
    ("no clip", {"recipe": {"clip": float("inf")}}),
    ("no feature weights", {"recipe": {"feature_weight": 0.0}}),
    ("feature weights F^0.25", {"recipe": {"feature_weight": 0.25}}),
    ("feature weights F^0.75", {"recipe": {"feature_weight": 0.75}}),
    ("hidden dropout 0.3", {"recipe": {"dropout": 0.3}}),
    ("mean of the last quarter", {"recipe": {"weight_average": 0.25}}),
    ("stopped by a tenth held out", {"recipe": {"held_out": 0.1}}),
    ("stopped by a fifth held out", {"recipe": {"held_out": 0.2}}),
)


@dataclass(frozen=True)
class Method:
    """One row of a table.

    Attributes:
        name: as the tables show it.
        fit: called with features, labels, seed and the settings; returns what predicts.
        settings: keyword arguments of `fit`, plain values: they are part of the key of a run.
        version: raised when the code of the method changes what it computes.
        only: the data sets that it runs on; None: all.
    """

    name: str
    fit: Callable[..., classic.Fitted]
    settings: dict[str, Any] = field(default_factory=dict)
    version: int = 1
    only: tuple[str, ...] | None = None

    def all_settings(self) -> dict[str, Any]:
        """Return the settings and, of the estimators, the defaults: a new default is a new run."""
        if self.fit in ESTIMATORS:
            return {**networks.default_settings(), **self.settings}
        return self.settings


ESTIMATORS = (
    networks.fit_estimator,
    networks.fit_dense,
    networks.fit_masked,
    networks.fit_at_density,
)
SHIPPED = "truly sparse classifier"
ONE = "one of its members"
TWO_PHASE = "selection, linear SVM"
SVM = "linear SVM"
DENSE = "dense, same recipe"

METHODS = {
    method.name: method
    for method in (
        Method(SHIPPED, networks.fit_estimator),
        Method(ONE, networks.fit_estimator, {"n_estimators": 1}),
        Method("the same, grown by gradient", networks.fit_estimator, {"evolution": "gradient"}),
        Method("the same, static", networks.fit_estimator, {"evolution": None}),
        Method("SET as in its paper", networks.fit_set_paper, {"hidden": [1000] * 3, "epochs": 50}),
        Method(DENSE, networks.fit_dense, {"evolution": None}),
        Method("masked twin", networks.fit_masked, only=("colon", "GLIOMA", "lung_small")),
        Method("balanced ridge", classic.fit_ridge),
        Method(TWO_PHASE, classic.fit_two_phase),
        Method(SVM, classic.fit_svm),
        Method("L2 logistic regression", classic.fit_logistic),
        Method("random forest", classic.fit_forest),
        Method("nearest shrunken centroids", classic.fit_centroids),
    )
}
ABLATIONS = {name: Method(name, networks.fit_estimator, settings) for name, settings in EXPLORED}
