"""Tables as people have them: arrays, data frames, sparse matrices, AnnData."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    _check_sample_weight,
    check_array,
    check_X_y,
    validate_data,
)

MISSING = ("refuse", "median")


def checked_table(estimator: BaseEstimator, table: Any, *, missing: str) -> Any:
    """Check a table to predict from; it must have the features that the estimator was fitted on.

    Args:
        estimator: a fitted estimator.
        table: (samples, features), anything that scikit-learn accepts, or an AnnData.
        missing: `"refuse"` or `"median"`.

    Returns:
        An array or a SciPy CSR matrix, float32 or float64, as it came; other numbers become
        float64. No copy where none is needed.

    Raises:
        ValueError: the table is not two-dimensional, is empty, has entries that are infinite or,
            unless they are filled in, missing, or has other features than the fitted ones.
    """
    content, names = _content(table)
    if names is None:
        checked = validate_data(estimator, content, reset=False, **_ACCEPTED)
    else:
        _check_names(estimator, names)
        checked = check_array(content, estimator=estimator, **_ACCEPTED)
    return _whole(checked, missing)


def checked_table_and_targets(
    estimator: BaseEstimator, table: Any, targets: Any, *, missing: str, **how: Any
) -> tuple[Any, npt.NDArray[Any]]:
    """Check a table to learn from, with its targets, one for each sample.

    The estimator is not changed: a fit that fails leaves it as it was. Returns and errors as
    `checked_table` says; `how` goes to scikit-learn's check_X_y.
    """
    content, _ = _content(table)
    checked, column = check_X_y(content, targets, estimator=estimator, **_ACCEPTED, **how)
    return _whole(checked, missing), column


def remember_features(estimator: BaseEstimator, table: Any) -> None:
    """Set `n_features_in_` of a fitted estimator, and `feature_names_in_` where there are names."""
    content, names = _content(table)
    validate_data(estimator, content, reset=True, skip_check_array=True)
    if names is not None:
        estimator.feature_names_in_ = names


_ACCEPTED: dict[str, Any] = {
    "accept_sparse": "csr",
    "dtype": [np.float64, np.float32],
    "ensure_all_finite": "allow-nan",
}


def _content(table: Any) -> tuple[Any, npt.NDArray[Any] | None]:
    """Return the matrix and the names of an AnnData, or the table as it is.

    The indices of a sparse matrix are checked here, before anything converts or slices it: SciPy's
    own loops trust them.
    """
    names = None
    if hasattr(table, "var_names") and hasattr(table, "X") and hasattr(table, "n_obs"):
        names = np.asarray([str(name) for name in table.var_names], dtype=object)
        table = table.X
    if sparse.issparse(table) and hasattr(table, "check_format"):
        table.check_format(full_check=True)
    return table, names


def _check_names(estimator: Any, names: npt.NDArray[Any]) -> None:
    fitted = getattr(estimator, "feature_names_in_", None)
    if fitted is None:
        if len(names) != estimator.n_features_in_:
            raise ValueError(
                f"`X` must have {estimator.n_features_in_} features, those that the estimator was "
                f"fitted on; it has {len(names)}"
            )
        return
    if len(fitted) != len(names) or (fitted != names).any():
        strange = sorted(set(names) ^ set(fitted))[:3]
        what = f"such as {', '.join(map(repr, strange))}" if strange else "in another order"
        raise ValueError(
            f"`X` must have the features that the estimator was fitted on, in their order; "
            f"it has others, {what}"
        )


def _whole(table: Any, missing: str) -> Any:
    """Raise where an entry is missing and nobody said what to do about it."""
    values = table.data if sparse.issparse(table) else table
    gaps = np.isnan(values)
    if missing != "median" and gaps.any():
        where = ""
        if values.ndim == 2:
            row, column = np.argwhere(gaps)[0]
            where = f"; the first is in sample {row}, feature {column}, both counted from 0"
        raise ValueError(
            f"Input X contains NaN: {int(gaps.sum())} values of `X` are missing{where}. Fill them "
            "in, or pass missing='median' for the median of each feature in the training samples"
        )
    if sparse.issparse(table) and not table.has_canonical_format:
        table = table.copy()
        table.sum_duplicates()
    return table


def checked_weights(sample_weight: Any, table: Any) -> npt.NDArray[np.float64]:
    """Return a weight of at least 0 for each sample of a table.

    Raises:
        ValueError: a weight is negative or not finite, all are 0, or their number differs.
    """
    weights: npt.NDArray[np.float64] = _check_sample_weight(
        sample_weight, table, dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():
        raise ValueError("`sample_weight` must have a weight above 0, but all are 0")
    return weights


def counting_samples(
    table: Any, targets: npt.NDArray[Any], weights: npt.NDArray[np.float64]
) -> tuple[Any, npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Leave out the samples of weight 0, and scale the weights of the others to a mean of 1."""
    counts = weights > 0
    if counts.all():
        return table, targets, weights / weights.mean()
    kept = weights[counts]
    return table[counts], targets[counts], kept / kept.mean()
