"""Reads archives that `numpy.savez` writes."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from microarray_study.errors import InputError
from microarray_study.readers.arrays import table_of_arrays
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading


def read_npz(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read an archive; see `table_of_arrays` for how features and labels are found."""
    arrays: dict[str, Any] = {}
    try:
        # Never allow_pickle: a pickled array runs whatever code its author put there. Opened here,
        # since numpy leaves a file that is no archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = _array(path, archive, name)
    except (OSError, InputError):
        raise
    except Exception as error:
        raise InputError(
            f"{path}: is no readable .npz archive of plain arrays (made by numpy.savez): {error}"
        ) from error
    return table_of_arrays(path, arrays, reading, known)


def _array(path: Path, archive: Any, name: str) -> Any:
    try:
        return archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"{path}: is no .npz archive of plain arrays: {name} was saved as an object array, "
            "which is a pickle and can run any code; save it as plain text or numbers: "
            f"numpy.savez(..., {name}={name}.astype(str)), or astype(float) for features"
        ) from error
