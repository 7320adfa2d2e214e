"""A data set: features, labels, names, and the checks that all must pass."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from microarray_study.errors import InputError
from microarray_study.labels import classes_of, one_label_a_sample

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """Features (samples, features) in float32 and a class number, 0, 1, ..., for each sample.

    The names of the features differ from each other. Where a file has no names, features and
    samples are numbered from 1. `notes` say what was decided when the file was read.
    """

    name: str
    source: str
    features: Features
    labels: Labels
    classes: tuple[str, ...]
    feature_names: tuple[str, ...] = ()
    sample_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

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
    name: str,
    source: str,
    features: Any,
    labels: Any,
    feature_names: Sequence[str] | None = None,
    sample_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> DataSet:
    """Check features and labels and make a data set of them; `InputError` if one is wrong."""
    checked = check_features(np.asarray(features), source)
    column, hot = one_label_a_sample(np.asarray(labels), source)
    if len(column) != len(checked):
        hint = ""
        if len(column) == checked.shape[1]:
            hint = "; samples are rows: is X transposed? Then pass --transpose"
        raise InputError(
            f"{source}: X has {len(checked)} samples (rows) but there are {len(column)} labels; "
            f"there must be one label for each sample{hint}"
        )
    classes = classes_of(column, source)
    unique, doubled = numbered_names(feature_names, "feature", checked.shape[1])
    samples = sample_names or [f"sample {i + 1}" for i in range(len(checked))]
    data = DataSet(
        name,
        source,
        checked,
        classes.numbers,
        classes.names,
        unique,
        tuple(samples),
        (*notes, *hot, *classes.notes, *doubled),
    )
    if len(data.classes) < 2:
        only = data.classes[0] if data.classes else "none"
        raise InputError(f"{source}: there must be at least 2 classes, got only {only!r}")
    lonely = [label for label, size in data.class_sizes.items() if size < 2]
    if lonely:
        raise InputError(
            f"{source}: every class needs at least 2 samples, one to train and one to test on, but "
            f"{_some(lonely)} has 1; leave such samples out or merge their classes{_gene(data)}"
        )
    return data


def numbered_names(
    names: Sequence[str] | None, kind: str, count: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return names that differ from each other, and a note if some did not.

    Without names they are `kind 1`, `kind 2`, and so on. The second `TP53` becomes `TP53 (2)`.

    >>> numbered_names(["TP53", "MYC", "TP53"], "feature", 3)[0]
    ('TP53', 'MYC', 'TP53 (2)')
    """
    if names is None:
        return tuple(f"{kind} {i + 1}" for i in range(count)), ()
    if len(set(names)) == len(names):
        return tuple(names), ()
    seen: Counter[str] = Counter()
    taken = set(names)
    unique = []
    for name in names:
        seen[name] += 1
        fresh = name
        while seen[name] > 1 and fresh in taken:
            fresh = f"{name} ({seen[name]})"
            seen[name] += fresh in taken
        taken.add(fresh)
        unique.append(fresh)
    doubled = [name for name, times in seen.items() if times > 1]
    return tuple(unique), (
        f"{len(doubled):,} {kind} names occur more than once, such as {doubled[0]!r}; they are "
        "numbered in the order of the file",
    )


def check_features(features: npt.NDArray[Any], source: str) -> Features:
    """Return the features in float32; `InputError` unless they are a table of finite numbers."""
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(
            f"{source}: X must be a table of samples x features, got the shape {features.shape}"
        )
    if features.dtype.kind not in "biuf":
        raise InputError(
            f"{source}: X must hold real numbers, got the type {features.dtype}; "
            "save X.astype(float) instead"
        )
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes inf, reported below
        numbers = np.ascontiguousarray(features, dtype=np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        row, column = np.unravel_index(int(finite.argmin()), finite.shape)
        raise InputError(
            f"{source}: X must be finite in float32, but {finite.size - finite.sum():,} of its "
            f"entries are not; the first is {features[row, column]} in sample {row + 1}, feature "
            f"{column + 1}; fill in or leave out what is missing: --missing median fills in the "
            "median of the feature, --missing drop-features or drop-samples leaves out"
        )
    return numbers


def _gene(data: DataSet) -> str:
    """Hint at a wrong label column where hardly any label occurs twice."""
    if len(data.classes) <= len(data.labels) / 2:
        return ""
    return (
        f". {len(data.classes)} different labels of {len(data.labels)} samples look like "
        "measurements of a gene or names of samples: --label NAME says where the labels are; if "
        "genes are in rows, --transpose says so"
    )


def _some(labels: list[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:3])
    return shown if len(labels) <= 3 else f"each of {shown}, ... ({len(labels)} classes)"
