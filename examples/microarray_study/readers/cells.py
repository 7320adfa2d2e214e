"""Reads the cells of a delimited text into float32, a block of lines at a time."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Iterator
from typing import Any, TextIO

import numpy as np
import pandas as pd

from microarray_study.data_set import Features
from microarray_study.errors import InputError
from microarray_study.readers.layout import Layout, fields
from microarray_study.readers.open_text import open_text
from microarray_study.readers.raw_table import Columns, as_number, numbers_of

# Cells that are parsed at once. pandas holds about 25 bytes for each of them meanwhile.
BLOCK = 2**19
# How files write "there is no value"; pandas compares exactly.
MISSING_CELLS = [
    cell
    for word in ("NA", "N/A", "#N/A", "#NA", "<NA>", "NaN", "-NaN", "None", "Null", "NaT", "?")
    for cell in {word, word.lower(), word.upper(), word.capitalize()}
]


def read_cells(
    layout: Layout,
    text_columns: Collection[int],
    left_out: Collection[int] = (),
    rows: int | None = None,
) -> Columns:
    """Read the lines after the header.

    Args:
        layout: how the text is written.
        text_columns: columns whose cells are kept as texts, too.
        left_out: numbers, from 0, of lines after the header that are not read.
        rows: how many lines to read; all of them if None.

    Raises:
        InputError: a line is too long or too short, or a cell that must be a number is not.
    """
    blocks: list[Features] = []
    texts: dict[int, list[str]] = {column: [] for column in sorted(text_columns)}
    try:
        with open_text(layout.path) as text:
            for _ in range(layout.head_lines):
                text.readline()
            for block in _blocks(text, layout, texts, left_out, rows):
                for column in texts:
                    texts[column].extend(block[column].fillna("").astype(str))
                blocks.append(_numbers(block, texts))
    except (pd.errors.ParserError, ValueError) as error:
        if isinstance(error, InputError | UnicodeError):
            raise
        raise _explained(layout, texts, left_out, str(error)) from error
    if not blocks:
        raise InputError(f"{layout.path}: has a header but no samples")
    last = texts.get(layout.width - 1)
    if last is None or "" in last:
        _refuse_uneven(layout, left_out)
    values = blocks.pop() if len(blocks) == 1 else np.concatenate(blocks)
    textual = set()
    for column, cells in texts.items():
        numbers = numbers_of(cells, layout.decimal)
        if numbers is None:
            textual.add(column)
        else:
            values[:, column] = numbers
    columns = Columns(layout.names, values, texts, frozenset(textual))
    columns.line_of = lambda row: next(itertools.islice(_lines(layout, left_out), row, None))[0]
    return columns


def _blocks(
    text: TextIO,
    layout: Layout,
    texts: Collection[int],
    left_out: Collection[int],
    rows: int | None,
) -> Iterator[pd.DataFrame]:
    width = layout.width
    options: dict[str, Any] = {
        "sep": r"\s+" if layout.delimiter == " " else layout.delimiter,
        "decimal": layout.decimal,
        "header": None,
        "dtype": {column: np.float32 for column in range(width) if column not in texts},
        "converters": dict.fromkeys(texts, str.strip),
        "na_values": MISSING_CELLS,
        "skipinitialspace": True,
        "skiprows": sorted(left_out) or None,
        "nrows": rows,
        "chunksize": max(1, BLOCK // width),
        "low_memory": False,
        "engine": "c",
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            with pd.read_csv(text, **options) as reader:
                for block in reader:
                    if block.shape[1] != width:
                        raise ValueError(f"expected {width} cells, got {block.shape[1]}")
                    yield block
    except pd.errors.EmptyDataError:
        return


def _numbers(block: pd.DataFrame, texts: Collection[int]) -> Features:
    """Return a block as float32; columns of texts are NaN."""
    values = np.full(block.shape, np.nan, dtype=np.float32)
    numeric = [column for column in block.columns if column not in texts]
    values[:, numeric] = block[numeric].to_numpy(dtype=np.float32)
    return values


def _lines(layout: Layout, left_out: Collection[int]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number, from 1, and the cells of each line after the header that is not empty."""
    skipped = set(left_out)
    with open_text(layout.path) as text:
        for number, line in enumerate(text, start=1):
            if number <= layout.head_lines or number - layout.head_lines - 1 in skipped:
                continue
            if line.strip():
                yield number, fields(line, layout.delimiter)


def _refuse_uneven(layout: Layout, left_out: Collection[int]) -> None:
    for number, cells in _lines(layout, left_out):
        if len(cells) != layout.width:
            raise InputError(
                f"{layout.path}, line {number}: expected {layout.width} cells, as in line "
                f"{layout.skipped + 1}, got {len(cells)}"
            )


def _explained(
    layout: Layout, texts: Collection[int], left_out: Collection[int], error: str
) -> InputError:
    """Find the line and the cell that pandas could not read."""
    names = layout.names
    for number, cells in _lines(layout, left_out):
        if len(cells) != layout.width:
            return InputError(
                f"{layout.path}, line {number}: expected {layout.width} cells, as in line "
                f"{layout.skipped + 1}, got {len(cells)}"
            )
        for column, cell in enumerate(cells):
            if column not in texts and as_number(cell, layout.decimal) is None:
                name = f" ({names[column]!r})" if names else ""
                return InputError(
                    f"{layout.path}, line {number}, column {column + 1}{name}: expected a number, "
                    f"got {cell!r}; only the label column may hold text (the last one, or the one "
                    "named by --label), and columns named by --ignore"
                )
    return InputError(f"{layout.path}: is no readable delimited text: {error}")
