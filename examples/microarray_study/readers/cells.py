"""Reads the cells of a delimited text into float32, a block of lines at a time."""

from __future__ import annotations

import csv
import io
import itertools
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
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
# From this many columns on, the cells of a line are parsed as one column: pandas takes about 50
# microseconds for each column of each block, which is most of the time if a block has few lines.
WIDE = 2000
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
            read = _wide_blocks if layout.width >= WIDE else _blocks
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused later
                blocks.extend(read(text, layout, texts, left_out, rows))
    except (pd.errors.ParserError, ValueError) as error:
        if isinstance(error, InputError | UnicodeError):
            raise
        raise _explained(layout, texts, _lines(layout, left_out, rows), str(error)) from error
    if not blocks:
        raise InputError(f"{layout.path}: has a header but no samples")
    last = texts.get(layout.width - 1)
    if last is None or "" in last:
        _refuse_uneven(layout, _lines(layout, left_out, rows))
    values = blocks.pop() if len(blocks) == 1 else np.concatenate(blocks)
    line_of = _LineOf(layout, left_out, rows)
    notes = []
    empty = np.isnan(values[:, -1]) & np.isnan(values).all(axis=1)
    for cells in texts.values():
        empty &= np.array(cells) == ""
    if empty.any():
        notes = [f"{empty.sum()} lines without any value are left out"]
        values = values[~empty]
        for column, cells in texts.items():
            texts[column] = list(itertools.compress(cells, ~empty))
        line_of = replace(line_of, kept=tuple(np.flatnonzero(~empty).tolist()))
    textual = set()
    for column, cells in texts.items():
        numbers = numbers_of(cells, layout.decimal)
        if numbers is None:
            textual.add(column)
        else:
            values[:, column] = numbers
    return Columns(layout.names, values, texts, frozenset(textual), notes=notes, line_of=line_of)


@dataclass(frozen=True)
class _LineOf:
    """Finds the line of the file that a row of the table stands in."""

    layout: Layout
    left_out: Collection[int]
    rows: int | None
    kept: tuple[int, ...] | None = None

    def __call__(self, row: int) -> int:
        place = row if self.kept is None else self.kept[row]
        lines = _lines(self.layout, self.left_out, self.rows)
        return next(itertools.islice(lines, place, None))[0]


def _blocks(
    text: TextIO,
    layout: Layout,
    texts: dict[int, list[str]],
    left_out: Collection[int],
    rows: int | None,
) -> Iterator[Features]:
    """Yield the numbers of blocks of lines, NaN in columns of texts; add to the texts."""
    width = layout.width
    numeric = [column for column in range(width) if column not in texts]
    options: dict[str, Any] = {
        "sep": r"\s+" if layout.delimiter == " " else layout.delimiter,
        "decimal": layout.decimal,
        "header": None,
        "dtype": dict.fromkeys(numeric, np.float32),
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
                    for column, cells in texts.items():
                        cells.extend(block[column].fillna("").astype(str))
                    values = np.full(block.shape, np.nan, dtype=np.float32)
                    values[:, numeric] = block[numeric].to_numpy(dtype=np.float32)
                    yield values
    except pd.errors.EmptyDataError:
        return


def _wide_blocks(
    text: TextIO,
    layout: Layout,
    texts: dict[int, list[str]],
    left_out: Collection[int],
    rows: int | None,
) -> Iterator[Features]:
    """Do what `_blocks` does, for lines of many cells."""
    skipped = set(left_out)
    lines = (line for number, line in enumerate(text) if number not in skipped and line.strip())
    for line in itertools.islice(lines, rows):
        cells = fields(line, layout.delimiter)
        if len(cells) != layout.width:
            raise ValueError(f"expected {layout.width} cells, got {len(cells)}")
        for column, known in texts.items():
            known.append(cells[column])
            cells[column] = ""
        parsed = pd.read_csv(
            io.StringIO("\n".join(cell or "NA" for cell in cells)),
            sep="\x1f",  # stands in no cell: each line is one
            decimal=layout.decimal,
            header=None,
            dtype=np.float32,
            na_values=MISSING_CELLS,
            skip_blank_lines=False,
            quoting=csv.QUOTE_NONE,
            engine="c",
            low_memory=False,
        )
        yield parsed.to_numpy().reshape(1, -1)


def _lines(
    layout: Layout, left_out: Collection[int], rows: int | None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number, from 1, and the cells of each line that is read and not empty."""
    skipped = set(left_out)
    count = 0
    with open_text(layout.path) as text:
        for number, line in enumerate(text, start=1):
            if number <= layout.head_lines or number - layout.head_lines - 1 in skipped:
                continue
            if line.strip():
                if count == rows:
                    return
                count += 1
                yield number, fields(line, layout.delimiter)


def _refuse_uneven(layout: Layout, lines: Iterator[tuple[int, list[str]]]) -> None:
    for number, cells in lines:
        if len(cells) != layout.width:
            raise InputError(
                f"{layout.path}, line {number}: expected {layout.width} cells, as in line "
                f"{layout.skipped + 1}, got {len(cells)}"
            )


def _explained(
    layout: Layout,
    texts: Collection[int],
    lines: Iterator[tuple[int, list[str]]],
    error: str,
) -> InputError:
    """Find the line and the cell that pandas could not read."""
    names = layout.names
    for number, cells in lines:
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
