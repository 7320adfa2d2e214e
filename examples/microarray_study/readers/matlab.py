"""Reads MATLAB files up to version 7; `matlab_hdf5` reads those of version 7.3."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from microarray_study.errors import InputError
from microarray_study.readers.arrays import LABELS, plain_texts, table_of_arrays
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading
from microarray_study.readers.try_out import try_out


def read_mat(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read a MATLAB file; see `table_of_arrays` for how features and labels are found."""
    try_out(path)
    try:  # a damaged file can raise nearly anything in here
        content = loaded(path)
    except NotImplementedError:
        from microarray_study.readers.matlab_hdf5 import mat_arrays

        content = mat_arrays(path)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path}: is no readable MATLAB file: {error}") from error
    arrays = _flat({name: a for name, a in content.items() if not name.startswith("__")})
    table = table_of_arrays(path, arrays, reading, known)
    if getattr(table.labels, "dtype", None) == np.object_:
        table.labels = _cells(path, table.labels)
    elif getattr(table.labels, "dtype", np.dtype("f")).kind == "U":
        table.labels = np.asarray(table.labels).ravel()  # a char matrix: a row a sample
    return table


def loaded(path: Path) -> dict[str, Any]:
    """Return the variables of a file up to version 7; of 7.3: NotImplementedError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it then raises an error for
        content: dict[str, Any] = scipy.io.loadmat(path, appendmat=False)
    return content


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Return the variables and, beside them, the fields of structs."""
    arrays: dict[str, Any] = {}
    for name, array in content.items():
        fields = getattr(getattr(array, "dtype", None), "names", None)
        if fields and array.size == 1:
            inner = {field: array.reshape(-1)[0][field] for field in fields}
            arrays |= {f: value for f, value in inner.items() if f not in content}
        else:
            arrays[name] = array
    return arrays


def _cells(path: Path, cells: Any) -> Any:
    """Return the labels of a cell array, in which each cell holds one text or one whole number."""
    texts = plain_texts(cells)
    if texts is not None:
        return texts
    values = [c.item() if getattr(c, "size", 0) == 1 else c for c in np.asarray(cells).ravel()]
    if all(isinstance(value, (int, float)) for value in values):
        return np.array(values)
    wrong = next(value for value in values if not isinstance(value, str))
    raise InputError(
        f"{path}: the labels ({' or '.join(LABELS[:2])}) are a cell array, so each cell must hold "
        f"a text or each a number, but one holds {type(wrong).__name__}; save a column of whole "
        "numbers instead"
    )
