"""Reads ARFF files of WEKA, dense and sparse ones."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TextIO

import numpy as np
import pandas as pd

from microarray_study.errors import InputError
from microarray_study.readers.columns import samples_in_rows
from microarray_study.readers.open_text import open_text
from microarray_study.readers.raw_table import Columns, RawTable, numbers_of
from microarray_study.readers.reading import Reading

ATTRIBUTE = re.compile(r"""@attribute\s+('(?:[^'\\]|\\.)*'|"[^"]*"|\S+)\s+(.+)""", re.IGNORECASE)
NUMERIC = ("numeric", "real", "integer")


def read_arff(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read an ARFF file; see `samples_in_rows` for which attribute is what.

    The last attribute is the class, as in WEKA, if it is the only one of names.

    Raises:
        InputError: the head or a line of data is no ARFF.
    """
    if reading.transpose:
        raise InputError(f"{path}: --transpose does not fit ARFF, whose lines are samples")
    with open_text(path) as text:
        attributes = _attributes(path, text)
        frame = _data(path, text, len(attributes))
    numeric = [i for i, (_, kind) in enumerate(attributes) if kind.lower() in NUMERIC]
    values = np.full(frame.shape, np.nan, dtype=np.float32)
    texts: dict[int, list[str]] = {}
    textual = set()
    ends = (0, 1, len(attributes) - 1)
    for i, (name, _) in enumerate(attributes):
        cells = [str(cell).strip() for cell in frame[i]]
        numbers = numbers_of(cells)
        if numbers is not None:
            values[:, i] = numbers
        elif i in numeric:
            raise InputError(f"{path}: the attribute {name!r} is numeric but holds text")
        else:
            textual.add(i)
        if i not in numeric or i in ends:
            texts[i] = cells
    names = [name for name, _ in attributes]
    columns = Columns(names, values, texts, frozenset(textual))
    nominal = [i for i, (_, kind) in enumerate(attributes) if kind.startswith("{")]
    if reading.label is None and known is None and nominal == [len(names) - 1]:
        # Numbers in braces are names of classes, which the type says and the cells do not.
        reading = Reading(label="last", ignore=reading.ignore)
    return samples_in_rows(path, columns, reading, known)


def _attributes(path: Path, text: TextIO) -> list[tuple[str, str]]:
    """Return name and type of each attribute, and leave the file at the first line of data."""
    attributes: list[tuple[str, str]] = []
    while line := text.readline():
        line = line.strip()
        if line.lower().startswith("@data"):
            if not attributes:
                raise InputError(f"{path}: has no @attribute before @data")
            return attributes
        if line.lower().startswith("@attribute"):
            found = ATTRIBUTE.match(line)
            if found is None:
                raise InputError(f"{path}: cannot read the attribute {line[:60]!r}")
            attributes.append((found[1].strip("'\""), found[2].strip()))
    raise InputError(f"{path}: is no whole ARFF file: there is no line @data")


def _data(path: Path, text: TextIO, width: int) -> pd.DataFrame:
    """Return the cells as texts."""
    start = text.tell()
    line = "%"
    while line and (not line.strip() or line.startswith("%")):
        start = text.tell()
        line = text.readline()
    if not line:
        raise InputError(f"{path}: has no line after @data")
    text.seek(start)
    if line.lstrip().startswith("{"):
        return _sparse_data(path, text, width)
    try:
        frame = pd.read_csv(
            text,
            header=None,
            dtype=str,
            keep_default_na=False,
            skipinitialspace=True,
            comment="%",
            quotechar="'" if "'" in line else '"',
        )
    except pd.errors.ParserError as error:
        raise InputError(f"{path}: its data cannot be read: {error}") from error
    if frame.shape[1] != width:
        raise InputError(
            f"{path}: expected {width} cells a line, one for each attribute, got {frame.shape[1]}"
        )
    if frame.isna().to_numpy().any():
        row = int(np.argwhere(frame.isna().to_numpy())[0][0])
        raise InputError(f"{path}: line {row + 1} after @data has fewer than {width} cells")
    return frame


def _sparse_data(path: Path, text: TextIO, width: int) -> pd.DataFrame:
    """Read lines such as {0 1.5, 7 tumor}; an attribute that is not named is 0."""
    rows = []
    for line in text:
        line = line.split("%")[0].strip()
        if not line:
            continue
        row = ["0"] * width
        for entry in filter(None, (part.strip() for part in line.strip("{}").split(","))):
            place, _, value = entry.partition(" ")
            if not place.isdigit() or int(place) >= width:
                raise InputError(f"{path}: {entry[:40]!r} names no attribute from 0 to {width - 1}")
            row[int(place)] = value.strip().strip("'\"")
        rows.append(row)
    return pd.DataFrame(rows)
