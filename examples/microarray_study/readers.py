"""Reads a data set from a MATLAB file, a NumPy archive or comma separated text."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io
import scipy.sparse

from microarray_study.data_set import DataSet, make_data_set
from microarray_study.errors import InputError


def read(path: Path, label: str | None = None) -> DataSet:
    """Read the data set in a `.mat`, `.npz` or `.csv` file; the file gives it its name.

    `label` names the column of a CSV file that holds the labels; without it, the last one does.
    """
    readers = {".mat": _read_mat, ".npz": _read_npz}
    kind = path.suffix.lower()
    if kind not in (*readers, ".csv"):
        raise InputError(f"{path}: expected a .mat, .npz or .csv file, got {kind or 'no ending'!r}")
    if not path.is_file():
        raise InputError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}")
    try:
        names: list[str] = []
        if kind == ".csv":
            features, labels, names = _read_csv(path, label)
        else:
            features, labels = readers[kind](path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return make_data_set(path.stem, path.name, features, labels, names)


def _read_mat(path: Path) -> tuple[Any, Any]:
    try:
        # A damaged file can raise nearly anything in here, and warn of what it then raises for.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = scipy.io.loadmat(path, appendmat=False)
    except NotImplementedError as error:
        raise InputError(
            f"{path}: is a MATLAB 7.3 (HDF5) file; save it again with save(..., '-v7')"
        ) from error
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path}: is no readable MATLAB file: {error}") from error
    features, labels = _pick(path, {k: v for k, v in content.items() if not k.startswith("__")})
    if scipy.sparse.issparse(features):
        features = features.toarray()
    if getattr(labels, "dtype", None) == np.object_:
        labels = _cell_texts(path, labels)
    return features, labels


def _cell_texts(path: Path, cells: npt.NDArray[Any]) -> list[str]:
    """Return the labels of a MATLAB cell array, in which each cell is an array of one text."""
    texts = [cell.item() if getattr(cell, "size", 0) == 1 else cell for cell in cells.ravel()]
    wrong = [text for text in texts if not isinstance(text, str)]
    if wrong:
        raise InputError(
            f"{path}: Y is a cell array, so each cell must hold a text, but one holds "
            f"{type(wrong[0]).__name__}; save Y as a column of whole numbers instead"
        )
    return texts


def _read_npz(path: Path) -> tuple[Any, Any]:
    try:
        # Never allow_pickle: a pickled array runs whatever code its author put there. Opened here,
        # since numpy leaves a file that is no archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return _pick(path, {key: archive[key] for key in archive.files})
    except (OSError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"{path}: is no readable .npz archive of plain arrays (made by numpy.savez): {error}"
        ) from error


def _pick(path: Path, content: dict[str, Any]) -> tuple[Any, Any]:
    """Find X and Y, in upper or lower case, among the variables of a file."""
    found = {}
    for name in ("X", "Y"):
        key = name if name in content else name.lower()
        if key not in content:
            held = ", ".join(sorted(content)) or "nothing"
            raise InputError(
                f"{path}: needs X (samples x features) and Y (labels), got {held}; no {name}"
            )
        found[name] = content[key]
    return found["X"], found["Y"]


def _read_csv(
    path: Path, label: str | None
) -> tuple[npt.NDArray[np.float64], list[str], list[str]]:
    """Return the features, the labels, and the names of the features where a header has them."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(n, row) for n, row in enumerate(csv.reader(file), start=1) if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no readable comma separated UTF-8 text: {error}") from error
    if not rows:
        raise InputError(f"{path}: is empty; expected one sample a line: numbers, then a label")
    first = rows[0][1]
    if len(first) < 2:
        raise InputError(
            f"{path}: a line needs at least one number and a label, separated by commas, got "
            f"{first[0]!r}"
        )
    column = _label_column(path, first, label)
    has_header = label is not None or not all(map(_is_number, _without(first, column)))
    if has_header:
        rows = rows[1:]
    if not rows:
        raise InputError(f"{path}: has a header but no samples")
    features = np.array([_numbers(path, line, row, first, column) for line, row in rows])
    names = [name.strip() for name in _without(first, column)] if has_header else []
    return features, [row[column] for _, row in rows], names


def _label_column(path: Path, header: list[str], label: str | None) -> int:
    names = [name.strip() for name in header]
    if label is None:
        return len(names) - 1
    if names.count(label) != 1:
        raise InputError(
            f"{path}: --label {label!r} must name one column of the first line, which holds "
            f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        )
    return names.index(label)


def _numbers(
    path: Path, line: int, row: list[str], first: list[str], column: int
) -> npt.NDArray[np.float64]:
    if len(row) != len(first):
        raise InputError(
            f"{path}, line {line}: expected {len(first)} cells, as in line 1, got {len(row)}"
        )
    try:
        return np.array(_without(row, column), dtype=np.float64)
    except ValueError:
        wrong = next(i for i, cell in enumerate(row) if i != column and not _is_number(cell))
        raise InputError(
            f"{path}, line {line}, column {wrong + 1}: expected a number, got {row[wrong]!r}; only "
            "the label column may hold text (the last one, or the one named by --label)"
        ) from None


def _without(row: list[str], column: int) -> list[str]:
    return row[:column] + row[column + 1 :]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
