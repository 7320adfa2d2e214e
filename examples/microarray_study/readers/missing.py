"""Missing values and missing labels: refused, filled in, or left out."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from microarray_study.data_set import numbered_names
from microarray_study.errors import InputError
from microarray_study.labels import missing_labels
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading


def settle_missing(table: RawTable, reading: Reading, source: str) -> None:
    """Do what the options say about samples without a label and about missing values.

    Raises:
        InputError: values are missing, and `reading.missing` is `refuse`; or nothing is left.
    """
    if table.labels is not None and reading.unlabelled == "drop":
        _drop_unlabelled(table)
    absent = np.isnan(table.values)
    count = int(absent.sum())
    if count == 0:
        return
    samples, features = np.flatnonzero(absent.any(axis=1)), np.flatnonzero(absent.any(axis=0))
    about = f"{count:,} of {absent.size:,} values are missing"
    if reading.missing == "refuse":
        names = numbered_names(table.feature_names, "feature", table.values.shape[1])[0]
        row = int(samples[0])
        column = int(np.flatnonzero(absent[row])[0])
        raise InputError(
            f"{source}: {about}, the first in sample {row + 1}, feature {names[column]!r}; "
            f"{len(features):,} features and {len(samples):,} samples have any; --missing median "
            "fills in the median of the feature, --missing drop-features or drop-samples leaves out"
        )
    if reading.missing == "drop-samples":
        keep_samples(table, ~np.any(absent, axis=1))
        table.notes.append(f"{about}: {len(samples):,} samples are left out")
    elif reading.missing == "drop-features":
        keep_features(table, ~np.any(absent, axis=0))
        table.notes.append(f"{about}: {len(features):,} features are left out")
    else:
        _fill_in_medians(table, absent, about)
    if 0 in table.values.shape:
        raise InputError(f"{source}: {about}, and --missing {reading.missing} leaves nothing")


def keep_samples(table: RawTable, kept: npt.NDArray[np.bool_]) -> None:
    """Keep the samples that `kept` marks."""
    table.values = table.values[kept]
    if table.labels is not None:
        table.labels = np.asarray(table.labels)[kept]
    if table.sample_names is None:  # numbered as they stand in the file, not anew
        table.sample_names = [f"sample {i + 1}" for i in np.flatnonzero(kept)]
    else:
        table.sample_names = [n for n, keep in zip(table.sample_names, kept, strict=True) if keep]


def keep_features(table: RawTable, kept: npt.NDArray[np.bool_]) -> None:
    """Keep the features that `kept` marks; features without names get numbers before."""
    names = numbered_names(table.feature_names, "feature", table.values.shape[1])[0]
    table.values = table.values[:, kept]
    table.feature_names = [n for n, keep in zip(names, kept, strict=True) if keep]


def _drop_unlabelled(table: RawTable) -> None:
    labels = np.asarray(table.labels)
    if labels.ndim == 2 and 1 in labels.shape:
        table.labels = labels = labels.ravel()
    if labels.ndim != 1 or len(labels) != len(table.values):
        return  # make_data_set says what is wrong
    absent = missing_labels(labels)
    if absent.any():
        keep_samples(table, ~absent)
        table.notes.append(f"{absent.sum()} samples without a label are left out")


def _fill_in_medians(table: RawTable, absent: npt.NDArray[np.bool_], about: str) -> None:
    empty: npt.NDArray[np.bool_] = np.all(absent, axis=0)
    if empty.any():
        table.notes.append(f"{empty.sum():,} features without any value are left out")
        keep_features(table, ~empty)
        absent = absent[:, ~empty]
    columns = np.flatnonzero(absent.any(axis=0))
    if len(columns):
        table.values = np.array(table.values)  # may be a view of what the reader holds
        part = table.values[:, columns]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            medians = np.nanmedian(part, axis=0)
        table.values[:, columns] = np.where(absent[:, columns], medians, part)
    table.notes.append(
        f"{about}: the median of the feature over all samples, those of test parts included, "
        "stands for each"
    )
