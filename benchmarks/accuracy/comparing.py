"""Tests of whether one method is more accurate than another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Difference:
    """How two methods differ on the same splits of one data set.

    Attributes:
        mean: mean over the splits of the first minus the second.
        p: of the corrected resampled t-test; 1 where all differences are equal to 0.
    """

    mean: float
    p: float

    @property
    def verdict(self) -> str:
        """`"win"`, `"loss"` or `"tie"` at the level of 5 %."""
        if self.p >= 0.05:
            return "tie"
        return "win" if self.mean > 0 else "loss"


def corrected_t_test(first: Sequence[float], second: Sequence[float], folds: int = 5) -> Difference:
    """Compare two methods on the same splits of repeated cross-validation.

    t = mean / sqrt((1 / n + test / train) variance), with n splits and test / train = 1 / (folds -
    1): the variance is corrected for training parts that overlap (Nadeau and Bengio 2003, Machine
    Learning 52:239). n - 1 degrees of freedom, two-sided.

    Raises:
        ValueError: the numbers of splits differ.
    """
    if len(first) != len(second):
        raise ValueError(f"the methods must have the same splits, got {len(first)}, {len(second)}")
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if count < 2:
        return Difference(mean, 1.0)
    variance = float(differences.var(ddof=1))
    if variance == 0:
        return Difference(mean, 1.0 if mean == 0 else 0.0)
    t = mean / math.sqrt((1 / count + 1 / (folds - 1)) * variance)
    return Difference(mean, float(2 * stats.t.sf(abs(t), count - 1)))


def wilcoxon(first: Sequence[float], second: Sequence[float]) -> float:
    """Return p of Wilcoxon's signed-rank test over data sets, two-sided; 1 if nothing differs."""
    differences = np.round(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), 12)
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def nemenyi_distance(methods: int, data_sets: int) -> float:
    """Return the difference of mean ranks above which two methods differ at 5 %, two-tailed.

    q sqrt(k (k + 1) / (6 N)) of k methods and N data sets, q the studentized range / sqrt(2)
    (Demsar 2006, JMLR 7:1, section 3.2.2 and table 5).
    """
    q = float(stats.studentized_range.ppf(0.95, methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * data_sets))


def mean_ranks(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean rank of each method, 1 the best, from scores[data set][method]."""
    ranks = [stats.rankdata([-round(value, 12) for value in row]) for row in scores]
    return [float(rank) for rank in np.mean(ranks, axis=0)]
