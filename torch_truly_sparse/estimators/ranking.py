"""A ranked list of the features that a fitted estimator relies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from .._arguments import as_int


@dataclass(frozen=True)
class FeatureRanking:
    """Features from the most to the least important; printing it shows a table.

    Attributes:
        names: (features,) str, the names in the order of the ranking.
        columns: (features,) int64, the column of each in the table that was fitted.
        importance: (features,) float64, as `feature_importances_`: they sum to 1 over all features.
        frequency: (features,) float64, share of the members that have the feature among their own
            `top` (stability selection, Meinshausen and Buehlmann 2010): 1.0 says that the choice
            does not depend on a member's random topology.
        top: how many features of each member were counted for `frequency`.
    """

    names: npt.NDArray[Any]
    columns: npt.NDArray[np.int64]
    importance: npt.NDArray[np.float64]
    frequency: npt.NDArray[np.float64]
    top: int

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        shown = min(len(self), self.top)
        width = max([len("feature"), *(len(str(name)) for name in self.names[:shown])])
        lines = [f"{'rank':>4}  {'feature':<{width}}  importance  frequency"]
        for row in range(shown):
            lines.append(
                f"{row + 1:>4}  {self.names[row]!s:<{width}}  {self.importance[row]:>10.5f}  "
                f"{self.frequency[row]:>9.2f}"
            )
        return "\n".join(lines)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with the columns feature, column, importance, frequency.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_frame() needs pandas: pip install pandas") from error
        return pd.DataFrame(
            {
                "feature": self.names,
                "column": self.columns,
                "importance": self.importance,
                "frequency": self.frequency,
            },
            index=pd.RangeIndex(1, len(self) + 1, name="rank"),
        )


def rank_features(
    estimator: Any, names: Sequence[str] | npt.NDArray[Any] | None = None, *, top: int = 50
) -> FeatureRanking:
    """Rank the features of a fitted `TrulySparseClassifier` or `TrulySparseRegressor`.

    Args:
        estimator: the fitted estimator.
        names: a name for each feature; None: those of the DataFrame that it was fitted on, or
            x0, x1, ...
        top: how many features of each member count for the selection frequency, and how many
            lines the printed table has.

    Returns:
        All features, from the most to the least important; equal ones in the order of columns.

    Raises:
        ValueError: `names` has another length than the features, or `top` is below 1.
        sklearn.exceptions.NotFittedError: the estimator is not fitted.

    Cost: O(members features log features).

    Example:
        >>> import numpy as np
        >>> from torch_truly_sparse.estimators import TrulySparseClassifier
        >>> X = np.random.default_rng(0).normal(size=(60, 200))
        >>> y = np.where(X[:, 7] > 0, "sick", "well")
        >>> classifier = TrulySparseClassifier(random_state=0).fit(X, y)
        >>> print(rank_features(classifier).names[0])
        x7
    """
    check_is_fitted(estimator, "member_importances_")
    top = as_int(top, "top", least=1)
    features = estimator.n_features_in_
    if names is None:
        unnamed = [f"x{number}" for number in range(features)]
        names = getattr(estimator, "feature_names_in_", unnamed)
    names = np.asarray(names)
    if names.shape != (features,):
        raise ValueError(
            f"`names` must have a name for each of the {features} features, got the shape "
            f"{names.shape}"
        )
    importance = np.asarray(estimator.feature_importances_, dtype=np.float64)
    order = np.argsort(-importance, kind="stable")
    counted = np.zeros(features)
    members = estimator.member_importances_
    for member in members:
        best = np.argsort(-member, kind="stable")[:top]
        counted[best[member[best] > 0]] += 1 / len(members)
    return FeatureRanking(
        names[order], order, importance[order], counted[order], min(top, features)
    )
