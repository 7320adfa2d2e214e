"""A data set: features, labels, and the checks that both must pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from microarray_study.errors import InputError

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """Features (samples, features) in float32 and a class number, 0, 1, ..., for each sample."""

    name: str
    source: str
    features: Features
    labels: Labels
    classes: tuple[str, ...]
    feature_names: tuple[str, ...] = ()  # empty: the source has none

    def name_of(self, feature: int) -> str:
        """Return the name of a feature: that of the source, or its number, from 1."""
        return self.feature_names[feature] if self.feature_names else f"feature {feature + 1}"

    @property
    def class_sizes(self) -> dict[str, int]:
        """How many samples each class has, by the name of the class."""
        sizes = np.bincount(self.labels, minlength=len(self.classes))
        return dict(zip(self.classes, sizes.tolist(), strict=True))

    @property
    def fingerprint(self) -> str:
        """A short hash of the numbers, so that results are never continued on other data."""
        digest = hashlib.sha256(np.ascontiguousarray(self.features).tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> str:
        """Describe the sizes and the classes in one line."""
        samples, features = self.features.shape
        sizes = ", ".join(str(size) for size in self.class_sizes.values())
        return f"{samples} samples x {features:,} features, {len(self.classes)} classes ({sizes})"


def make_data_set(
    name: str, source: str, features: Any, labels: Any, feature_names: Sequence[str] = ()
) -> DataSet:
    """Check features and labels and make a data set of them; `InputError` if one is wrong."""
    checked = _check_features(np.asarray(features), source)
    numbers, classes = _class_numbers(_one_column(np.asarray(labels), source), source)
    if len(numbers) != len(checked):
        hint = "; samples are rows: is X transposed?" if len(numbers) == checked.shape[1] else ""
        raise InputError(
            f"{source}: X has {len(checked)} samples (rows) but there are {len(numbers)} labels; "
            f"there must be one label for each sample{hint}"
        )
    data = DataSet(name, source, checked, numbers, classes, tuple(feature_names))
    if len(classes) < 2:
        only = classes[0] if classes else "none"
        raise InputError(f"{source}: there must be at least 2 classes, got only {only!r}")
    lonely = [label for label, size in data.class_sizes.items() if size < 2]
    if lonely:
        raise InputError(
            f"{source}: every class needs at least 2 samples, one to train and one to test on, but "
            f"{_some(lonely)} has 1; leave such samples out or merge their classes"
        )
    return data


def _check_features(features: npt.NDArray[Any], source: str) -> Features:
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(
            f"{source}: X must be a table of samples x features, got the shape {features.shape}"
        )
    if features.dtype.kind not in "biuf":
        raise InputError(f"{source}: X must hold real numbers, got the type {features.dtype}")
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, reported below
        numbers = np.ascontiguousarray(features, dtype=np.float32)
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{source}: X must be finite in float32, but {len(bad):,} of its entries are not; the "
            f"first is {features[row, column]} in sample {row + 1}, feature {column + 1}; "
            "fill in or leave out what is missing"
        )
    return numbers


def _one_column(labels: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
    if labels.ndim == 2 and 1 in labels.shape:
        labels = labels.ravel()
    if labels.ndim != 1:
        raise InputError(
            f"{source}: Y must hold one label for each sample, got the shape {labels.shape}"
        )
    return labels


def _class_numbers(labels: npt.NDArray[Any], source: str) -> tuple[Labels, tuple[str, ...]]:
    """Return class numbers, from 0 in the order of the sorted labels, and the labels as text."""
    if labels.dtype.kind == "f":
        odd = labels[~np.isfinite(labels) | (labels != np.floor(labels))]
        if len(odd):
            raise InputError(
                f"{source}: labels must be whole numbers or text, got {odd[0]} "
                f"({len(odd)} such); this job is classification, not regression"
            )
        labels = labels.astype(np.int64)
    elif labels.dtype.kind == "O" and all(isinstance(label, str) for label in labels):
        labels = labels.astype(np.str_)
    elif labels.dtype.kind not in "biuUS":
        raise InputError(
            f"{source}: labels must be whole numbers or text, got the type {labels.dtype}"
        )
    if labels.dtype.kind in "US":
        labels = np.char.strip(labels.astype(np.str_))
        if (labels == "").any():
            raise InputError(f"{source}: {int((labels == '').sum())} labels are empty")
    values, numbers = np.unique(labels, return_inverse=True)
    return numbers.astype(np.int64), tuple(str(value) for value in values)


def _some(labels: list[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:3])
    return shown if len(labels) <= 3 else f"each of {shown}, ... ({len(labels)} classes)"
