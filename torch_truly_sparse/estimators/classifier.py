"""The classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets

from . import anova
from .base import TrulySparseEstimator
from .losses import one_against_rest, smoothed_cross_entropy
from .recipe import Recipe
from .tables import checked_table_and_targets, checked_weights, counting_samples


class TrulySparseClassifier(ClassifierMixin, TrulySparseEstimator):  # type: ignore[misc]
    """A classifier for wide tables: an ensemble of truly sparse networks.

    Give it the table as it is: raw intensities, log ratios or counts, with all its features. Each
    feature is scaled robustly and weighted by what the training samples say about it; each network
    holds only its nonzero weights; the networks learn side by side, and their outputs are averaged.

    Args:
        n_estimators: number of networks.
        hidden_units: hidden units of each.
        epsilon: connections of each network's first layer, as round(epsilon (features + hidden
            units)).
        evolution: whether the topology of the first layer changes while it learns: `"set"` drops
            the weakest connections and grows others at random (SET), `"gradient"` grows them where
            the loss falls the fastest (RigL), None keeps the topology.
        max_epochs: times that each training sample is seen.
        batch_size: samples of a training step; `"auto"`: 16, more for more than 1024 samples.
        learning_rate: of AdamW, at the start.
        input_dropout: share of the features left out of each training step, in [0, 1).
        class_weight: `"balanced"` gives all classes the same say; None gives it to all samples; a
            dict gives a weight for each class.
        missing: `"refuse"` raises where a value is missing; `"median"` takes the median of the
            feature in the training samples, and 0 in a sparse table.
        recipe: a `Recipe` with what is rarely changed; None: the default one.
        random_state: int, numpy.random.RandomState or None. The same int gives the same bits, for
            any number of threads.
        n_jobs: threads of torch while fitting and predicting; -1: all cores; None: as torch is set.
        verbose: 1 shows a progress bar (needs tqdm).

    Attributes:
        classes_: (n_classes,) the labels, sorted.
        n_features_in_, feature_names_in_: as scikit-learn has them; the names only where the table
            had some (pandas, polars, AnnData).
        feature_importances_: (n_features_in_,) float32, their sum is 1.
        member_importances_: (n_estimators, n_features_in_) float32, the same for each member.
        ensemble_, scaling_: the fitted modules; `members()` gives plain ones.
        n_weights_: number of weights of all networks.
        loss_curve_, n_iter_: mean loss of each epoch, and their number.

    Notes:
        A table X is (n_samples, n_features), real and finite: an array, a data frame of pandas or
        polars, an AnnData (its `X`), or a SciPy sparse matrix. A sparse matrix is never made dense
        as a whole; fitted on one, the scaling does not centre. Labels may be numbers or strings.

        Fitting takes O(epochs samples n_estimators epsilon (features + hidden units)) time and,
        beyond the table, 4 bytes for each of its entries and about 40 for each weight.

        The sources of each step are in docs/estimators.md.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(60, 2000))
        >>> y = np.where(X[:, :20].sum(axis=1) > 0, "tumour", "normal")
        >>> classifier = TrulySparseClassifier(random_state=0).fit(X[:40], y[:40])
        >>> classifier.predict(X[:2]).tolist() == y[:2].tolist()
        True
        >>> classifier.predict_proba(X[40:]).shape
        (20, 2)
    """

    def __init__(
        self,
        n_estimators: int = 8,
        *,
        hidden_units: int = 1000,
        epsilon: float = 5.0,
        evolution: str | None = "set",
        max_epochs: int = 60,
        batch_size: int | str = "auto",
        learning_rate: float = 0.003,
        input_dropout: float = 0.5,
        class_weight: Any = "balanced",
        missing: str = "refuse",
        recipe: Recipe | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            n_estimators,
            hidden_units=hidden_units,
            epsilon=epsilon,
            evolution=evolution,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            input_dropout=input_dropout,
            missing=missing,
            recipe=recipe,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TrulySparseClassifier:
        """Train the ensemble.

        Args:
            X: (n_samples, n_features), see the notes of the class.
            y: (n_samples,) the label of each sample.
            sample_weight: (n_samples,) of at least 0, or None for equal ones. A sample of weight 0
                does not count.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: a parameter, the table or the labels do not fit; nothing has been
                trained then.
        """
        table, column = checked_table_and_targets(self, X, y, missing=self.missing)
        check_classification_targets(column)
        weights = checked_weights(sample_weight, table)
        settings = self._checked_settings(table.shape[0])
        balanced = self._balanced()
        classes, numbers = np.unique(column, return_inverse=True)
        if not balanced and self.class_weight is not None:
            weights = weights * compute_sample_weight(self.class_weight, column)
            if not weights.any():
                raise ValueError("`class_weight` must give a weight above 0 to a class of `y`")
        table, numbers, weights = counting_samples(table, numbers, weights)
        labels = torch.from_numpy(numbers.astype(np.int64))
        share = torch.from_numpy(weights).float()
        recipe = settings[1]
        loss: Any
        if recipe.loss == "squared":
            loss = one_against_rest(labels, len(classes), share, balanced=balanced)
        else:
            loss = smoothed_cross_entropy(
                labels, len(classes), share, smoothing=recipe.label_smoothing, balanced=balanced
            )
        targets = 2 * torch.nn.functional.one_hot(labels, len(classes)).float() - 1
        self._fit(
            X,
            table,
            settings,
            lambda rows: anova.between_classes(rows, labels, len(classes), share),
            loss,
            targets,
        )
        self.classes_ = classes
        self._temperature = recipe.temperature if recipe.loss == "squared" else 1.0
        return self

    def _balanced(self) -> bool:
        """Check `class_weight` and say whether all classes get the same weight."""
        given = self.class_weight
        if isinstance(given, str) and given == "balanced":
            return True
        if given is None or isinstance(given, dict):
            return False
        raise ValueError(f"`class_weight` must be 'balanced', a dict or None, got {given!r}")

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the mean output of the members for each class.

        Args:
            X: (n_samples, n_features).

        Returns:
            (n_samples, n_classes) float64, about +1 for the class of a sample and -1 for others;
            for two classes (n_samples,), above 0 for `classes_[1]`.
        """
        outputs = self._mean_outputs(X)
        if outputs.shape[1] == 2:
            half: npt.NDArray[np.float64] = (outputs[:, 1] - outputs[:, 0]) / 2
            return half
        return outputs

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class, softmax(mean output / temperature).

        Args:
            X: (n_samples, n_features).

        Returns:
            (n_samples, n_classes) float64, rows sum to 1; with `class_weight="balanced"` they are
            those of equally frequent classes. The temperature is one number for all tables
            (`Recipe.temperature`); scikit-learn's CalibratedClassifierCV fits it to yours.
        """
        outputs = self._mean_outputs(X)
        probabilities: npt.NDArray[np.float64] = softmax(outputs / self._temperature, axis=1)
        return probabilities

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class of the largest mean output of each sample, (n_samples,)."""
        best: npt.NDArray[Any] = self._mean_outputs(X).argmax(axis=1)
        found: npt.NDArray[Any] = self.classes_[best]
        return found
