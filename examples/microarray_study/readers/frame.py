"""From a data frame of pandas to the columns of a table."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from microarray_study.readers.columns import samples_in_rows
from microarray_study.readers.layout import LABEL_NAMES, plain_name
from microarray_study.readers.raw_table import Columns, RawTable, numbers_of
from microarray_study.readers.reading import Reading


def columns_of(frame: pd.DataFrame) -> Columns:
    """Return the columns of a frame; an index with names becomes the names of the samples."""
    names = [str(name) for name in frame.columns]
    values = np.full(frame.shape, np.nan, dtype=np.float32)
    numeric = [i for i, kind in enumerate(frame.dtypes) if pd.api.types.is_numeric_dtype(kind)]
    of_numbers = set(numeric)
    with np.errstate(over="ignore"):
        if len(numeric) == len(names):
            values = frame.to_numpy(dtype=np.float32, na_value=np.nan)
        else:
            part = frame.iloc[:, numeric]
            values[:, numeric] = part.to_numpy(dtype=np.float32, na_value=np.nan)
    texts: dict[int, list[str]] = {}
    textual = set()
    for i, name in enumerate(names):
        if i in of_numbers:
            if i in (0, 1, len(names) - 1) or plain_name(name) in LABEL_NAMES:
                texts[i] = _texts(frame.iloc[:, i])
            continue
        texts[i] = _texts(frame.iloc[:, i])
        numbers = numbers_of(texts[i])
        if numbers is None:
            textual.add(i)
        else:
            values[:, i] = numbers
    columns = Columns(names, values, texts, frozenset(textual))
    if not isinstance(frame.index, pd.RangeIndex):
        columns.row_names = [str(name) for name in frame.index]
        columns.notes = ["the index of the table is taken as sample names"]
    return columns


def transposed(
    path: Path, frame: pd.DataFrame, reading: Reading, known: Collection[str] | None
) -> RawTable:
    """Return a table whose rows are genes: turn it and read it as one of samples in rows."""
    first = frame.columns[0]
    if isinstance(frame.index, pd.RangeIndex) and not pd.api.types.is_numeric_dtype(frame[first]):
        frame = frame.set_index(first)
    turned = frame.T.infer_objects()
    turned.columns = [str(name) for name in turned.columns]
    table = samples_in_rows(path, columns_of(turned), reading, known)
    table.notes.insert(0, "genes are in rows")
    return table


def _texts(column: Any) -> list[str]:
    return [
        "" if missing else str(value) for value, missing in zip(column, column.isna(), strict=True)
    ]
