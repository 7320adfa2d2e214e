"""The data sets of the tables, and the splits that all methods share."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import io, sparse
from sklearn.model_selection import StratifiedKFold

# Sets on which the recipe of the estimators was searched, and sets that had no part in it.
SEARCHED = (
    "colon",
    "leukemia",
    "lymphoma",
    "nci9",
    "GLIOMA",
    "Prostate-GE",
    "lung_small",
    "TOX-171",
    "borovecki",
    "shipp",
)
CONFIRMED = ("chowdary", "christensen", "gravier", "khan", "pomeroy", "su")
SMALL = SEARCHED + CONFIRMED
LARGER = ("madelon", "COIL20", "PCMAC")
# Made by `python -m benchmarks.accuracy.packaged`; fitted once, with the defaults as they were.
PACKAGED = (
    "golub",
    "all_lineage",
    "all_molecular",
    "bladder",
    "myoblasts",
    "nci60",
    "medulloblastoma",
    "gender",
    "smokers",
    "diet",
    "soil",
    "adrenal",
    "blood",
)

FOLDS = 5
REPEATS = 5


@dataclass(frozen=True)
class DataSet:
    """A table of samples x features in float32, and the number of the class of each sample."""

    name: str
    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1

    @property
    def fingerprint(self) -> str:
        """A short hash of the numbers: results of other data are not mixed with these."""
        digest = hashlib.sha256(np.ascontiguousarray(self.features).tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Split:
    """The positions of the samples to train on and of those to test on."""

    number: int
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def load(folder: Path, name: str) -> DataSet:
    """Read `X` and `Y` of a MATLAB file.

    Raises:
        FileNotFoundError: the folder has no such file.
    """
    content = io.loadmat(str(folder / f"{name}.mat"))
    table = content["X"]
    if sparse.issparse(table):
        table = table.toarray()
    labels: Any = np.asarray(content["Y"]).ravel()
    if labels.dtype == object:
        labels = np.array([str(np.asarray(label).ravel()[0]) for label in labels])
    numbers = np.unique(labels, return_inverse=True)[1]
    return DataSet(name, np.asarray(table, dtype=np.float32), numbers.astype(np.int64))


def splits(data: DataSet, count: int = FOLDS * REPEATS) -> Iterator[Split]:
    """Yield the first `count` splits of repeated stratified cross-validation, 5 repeats of 5 folds.

    Repeat r is StratifiedKFold(5, shuffle=True, random_state=r). A class of fewer than 5 samples
    is missing in some test parts.
    """
    number = 0
    for repeat in range(REPEATS):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The least populated class", UserWarning)
            parts = list(folds.split(data.features, data.labels))
        for train, test in parts:
            if number == count:
                return
            yield Split(number, train, test)
            number += 1
