"""Runs methods on splits, and keeps what they did."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .data_sets import DataSet, Split, splits
from .methods import Method
from .store import Run, Store


def run_all(
    data_sets: Iterable[DataSet],
    methods: Sequence[Method],
    count: int,
    store: Store,
    tell: Callable[[str], None],
) -> int:
    """Do every run that is not in the store; returns how many that were.

    Split by split, so that a campaign that is stopped has compared all methods on the same splits.
    """
    done = 0
    for data in data_sets:
        chosen = [m for m in methods if m.only is None or data.name in m.only]
        for split in splits(data, count):
            for method in chosen:
                if store.has(data, split, method):
                    continue
                run = run_one(data, split, method)
                store.add(data, split, method, run)
                done += 1
                tell(
                    f"{data.name}, split {split.number}, {method.name}: balanced accuracy "
                    f"{run.balanced:.3f}, {run.fit_seconds:.1f} s"
                )
    return done


def run_one(data: DataSet, split: Split, method: Method) -> Run:
    """Fit a method on the training part of a split, and test it on the test part."""
    started = time.perf_counter()
    fitted = method.fit(
        data.features[split.train], data.labels[split.train], split.number, **method.settings
    )
    fit_seconds = time.perf_counter() - started
    started = time.perf_counter()
    predicted = fitted.predict(data.features[split.test])
    predict_seconds = time.perf_counter() - started
    truth = data.labels[split.test]
    return Run(
        data.name,
        data.fingerprint,
        split.number,
        method.name,
        method.settings,
        method.version,
        float((predicted == truth).mean()),
        balanced_accuracy(truth, predicted),
        round(fit_seconds, 4),
        round(predict_seconds, 4),
        int(fitted.weights),
    )


def balanced_accuracy(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> float:
    """Return the mean over the classes that occur of the share of their samples that is right."""
    return float(np.mean([(predicted[truth == c] == c).mean() for c in np.unique(truth)]))
