"""Reads Parquet files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pyarrow  # noqa: F401  pandas needs it; named here so that its lack is told by its name

from microarray_study.errors import InputError
from microarray_study.readers.columns import samples_in_rows
from microarray_study.readers.frame import columns_of, transposed
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading


def read_parquet(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read a table of pandas, Arrow or R; see `samples_in_rows` for which column is what."""
    try:
        frame = pd.read_parquet(path)
    except OSError:
        raise
    except Exception as error:
        raise InputError(f"{path}: is no readable Parquet file: {error}") from error
    if reading.transpose:
        return transposed(path, frame, reading, known)
    return samples_in_rows(path, columns_of(frame), reading, known)
