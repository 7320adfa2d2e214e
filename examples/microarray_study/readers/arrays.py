"""Finds features and labels among the named arrays of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from microarray_study.errors import InputError
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading

# Names of common collections, the most common first: ASU, scikit-learn, Deng Cai, UCI, TensorFlow.
FEATURES = ("X", "x", "fea", "features", "data", "Data", "expression", "inputs")
LABELS = ("Y", "y", "gnd", "label", "labels", "Labels", "target", "targets", "class", "classes")
FEATURE_NAMES = ("feature_names", "gene_names", "genes", "genenames", "featureNames", "geneNames")
SAMPLE_NAMES = ("sample_names", "samples", "sampleNames", "sample_ids")


def table_of_arrays(
    path: object, arrays: Mapping[str, Any], reading: Reading, known: Collection[str] | None
) -> RawTable:
    """Find the features, the labels and, where a file has them, the names.

    Features and labels are known by their names; an only table and an only vector that fits it do
    without. `--label` names the array of labels.

    Raises:
        InputError: the names and the shapes do not tell what is what; the text lists them.
    """
    notes: list[str] = []
    name = _features(path, arrays, reading, notes)
    if name != "X":
        notes.append(f"features: {name!r}")
    values = _numbers(path, name, arrays[name])
    if reading.transpose:
        values = values.T
        notes.append("genes are in rows")
    labels = None
    if known is None:
        label = _label(path, arrays, reading, name, values.shape)
        if label != "Y":
            notes.append(f"labels: {label!r}")
        labels = arrays[label]
    table = RawTable(values, labels, notes=notes)
    if values.ndim == 2:
        table.feature_names = _names(arrays, FEATURE_NAMES, values.shape[1])
        table.sample_names = _names(arrays, SAMPLE_NAMES, values.shape[0])
    return table


def _numbers(path: object, name: str, features: Any) -> npt.NDArray[np.float32]:
    """Return features in float32; numbers beyond it become infinite and are refused later."""
    if sparse.issparse(features):
        try:
            features.check_format(full_check=True)  # SciPy's own loops trust the indices
        except ValueError as error:
            raise InputError(f"{path}: {name} is no well-formed sparse matrix: {error}") from error
        features = features.toarray()
    features = np.asarray(features)
    if features.ndim != 2 or 0 in features.shape:
        raise InputError(
            f"{path}: {name} must be a table of samples x features, got the shape {features.shape}"
        )
    if features.dtype.kind == "O":
        raise InputError(
            f"{path}: {name} must hold real numbers, got the type object (cells or objects); save "
            "it as numbers: cell2mat(X) in MATLAB, X.astype(float) in NumPy"
        )
    if features.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} must hold real numbers, got the type {features.dtype}")
    with np.errstate(over="ignore"):
        numbers: npt.NDArray[np.float32] = features.astype(np.float32)
    return numbers


def _features(path: object, arrays: Mapping[str, Any], reading: Reading, notes: list[str]) -> str:
    for name in FEATURES:
        if name in arrays and name != reading.label:
            return name
    tables = [
        name
        for name, array in arrays.items()
        if name != reading.label
        and getattr(array, "ndim", 0) == 2
        and min(array.shape) > 1
        and getattr(array, "dtype", np.dtype("O")).kind in "biuf"
    ]
    # One-hot labels are a table, too; its name tells it.
    tables = [name for name in tables if name not in LABELS] or tables
    if len(tables) == 1:
        return tables[0]
    raise InputError(
        f"{path}: needs X (samples x features) and Y (labels), got {_held(arrays)}; no X; call the "
        f"features one of {', '.join(FEATURES)}"
    )


def _label(
    path: object,
    arrays: Mapping[str, Any],
    reading: Reading,
    features: str,
    shape: tuple[int, ...],
) -> str:
    if reading.label is not None:
        if reading.label in arrays:
            return reading.label
        raise InputError(
            f"{path}: --label {reading.label!r} must name an array of the file, which holds "
            f"{_held(arrays)}"
        )
    for name in LABELS:
        if name in arrays:
            return name
    vectors = [
        name
        for name, array in arrays.items()
        if name != features and shape[:1] == (getattr(array, "size", 0),)
    ]
    if len(vectors) == 1:
        return vectors[0]
    raise InputError(
        f"{path}: needs X (samples x features) and Y (labels), got {_held(arrays)}; no Y; --label "
        "NAME says which array holds the labels"
    )


def _names(arrays: Mapping[str, Any], names: tuple[str, ...], count: int) -> list[str] | None:
    """Return an array of texts of the right length that is called like one of `names`."""
    for name in names:
        texts = plain_texts(arrays.get(name))
        if texts is not None and len(texts) == count:
            return texts
    return None


def plain_texts(array: Any) -> list[str] | None:
    """Return an array of texts, or of cells with a text each, as a list; None for anything else."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "OUS":
        return None
    texts = [cell.item() if getattr(cell, "size", 0) == 1 else cell for cell in array.ravel()]
    texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in texts]
    return [text.strip() for text in texts] if all(isinstance(t, str) for t in texts) else None


def _held(arrays: Mapping[str, Any]) -> str:
    held = [
        f"{name} {' x '.join(map(str, getattr(array, 'shape', ())))}".strip()
        for name, array in sorted(arrays.items())
    ]
    return ", ".join(held) or "nothing"
