"""The regressor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import RegressorMixin

from . import anova
from .base import TrulySparseEstimator
from .losses import SquaredLoss
from .tables import checked_table_and_targets, checked_weights, counting_samples


class TrulySparseRegressor(RegressorMixin, TrulySparseEstimator):  # type: ignore[misc]
    """A regressor for wide tables: an ensemble of truly sparse networks.

    Scaling, networks and training are those of `TrulySparseClassifier`, which says more; the loss
    is the squared error of targets that are standardised inside.

    Args:
        n_estimators: number of networks.
        hidden_units: hidden units of each.
        epsilon: connections of each network's first layer, as round(epsilon (features + hidden
            units)).
        evolution: `"set"`, `"gradient"` or None, as for the classifier.
        max_epochs: times that each training sample is seen.
        batch_size: samples of a training step; `"auto"`: 16, more for more than 1024 samples.
        learning_rate: of AdamW, at the start.
        input_dropout: share of the features left out of each training step, in [0, 1).
        missing: `"refuse"` or `"median"`.
        recipe: a `Recipe` with what is rarely changed; None: the default one.
        random_state: int, numpy.random.RandomState or None. The same int gives the same bits, for
            any number of threads.
        n_jobs: threads of torch while fitting and predicting; -1: all cores; None: as torch is set.
        verbose: 1 shows a progress bar (needs tqdm).

    Attributes:
        n_features_in_, feature_names_in_, feature_importances_, member_importances_, ensemble_,
        scaling_, n_weights_, loss_curve_, n_iter_: as for the classifier.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(80, 300))
        >>> y = X[:, :5].sum(axis=1)
        >>> TrulySparseRegressor(random_state=0).fit(X, y).predict(X[:3]).shape
        (3,)
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TrulySparseRegressor:
        """Train the ensemble.

        Args:
            X: (n_samples, n_features), as the classifier takes it.
            y: (n_samples,) or (n_samples, n_outputs), finite numbers.
            sample_weight: (n_samples,) of at least 0, or None for equal ones.

        Returns:
            The estimator itself.

        Raises:
            TypeError, ValueError: a parameter, the table or the targets do not fit; nothing has
                been trained then.
        """
        table, values = checked_table_and_targets(
            self, X, y, missing=self.missing, y_numeric=True, multi_output=True
        )
        weights = checked_weights(sample_weight, table)
        settings = self._checked_settings(table.shape[0])
        single = values.ndim == 1
        values = values.reshape(len(values), -1).astype(np.float64)
        table, values, weights = counting_samples(table, values, weights)
        mean = np.average(values, axis=0, weights=weights)
        deviation = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
        deviation = np.where(deviation > 0, deviation, 1.0)
        targets = torch.from_numpy((values - mean) / deviation).float()
        share = torch.from_numpy(weights).float()
        self._fit(
            X,
            table,
            settings,
            lambda rows: anova.along_targets(rows, targets, share),
            SquaredLoss(targets, share[:, None]),
            targets,
        )
        self.target_mean_, self.target_deviation_ = mean, deviation
        self._single_target = single
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the mean of the members, (n_samples,) or (n_samples, n_outputs), as `y` was."""
        outputs = self._mean_outputs(X) * self.target_deviation_ + self.target_mean_
        values: npt.NDArray[np.float64] = outputs[:, 0] if self._single_target else outputs
        return values

    def __sklearn_tags__(self) -> Any:
        """Say what scikit-learn may give: several targets, too."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
