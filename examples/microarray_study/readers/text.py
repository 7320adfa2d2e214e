"""Reads delimited text: comma, semicolon, tab or space; samples or genes in rows."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from microarray_study.readers.cells import read_cells
from microarray_study.readers.columns import samples_in_rows
from microarray_study.readers.genes_in_rows import read_genes_in_rows
from microarray_study.readers.layout import (
    ID_NAMES,
    LABEL_NAMES,
    Layout,
    find_layout,
    plain_name,
    with_header,
)
from microarray_study.readers.raw_table import Columns, RawTable, as_number
from microarray_study.readers.reading import Reading


def read_text(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read a delimited text; see `samples_in_rows` for `known` and the errors."""
    layout = find_layout(path)
    if reading.transpose:
        table = read_genes_in_rows(layout, reading, known)
    else:
        names = {*(known or ()), *reading.ignore, *([reading.label] if reading.label else [])}
        layout = with_header(layout, names)
        columns = read_cells(layout, _text_columns(layout, reading))
        columns = _late_header(layout, columns)
        table = samples_in_rows(path, columns, reading, known)
    table.notes[:0] = layout.notes
    return table


def _text_columns(layout: Layout, reading: Reading) -> set[int]:
    """Return the columns that may be labels or names of samples, after their place or content."""
    width = layout.width
    columns = {0, 1, width - 1}
    for row in layout.rows:
        columns |= {
            i for i, cell in enumerate(row[:width]) if as_number(cell, layout.decimal) is None
        }
    if not layout.has_header:
        columns |= {
            i for i, cell in enumerate(layout.first) if as_number(cell, layout.decimal) is None
        }
    for i, name in enumerate(layout.names or ()):
        if (
            name in (reading.label, *reading.ignore)
            or not name
            or plain_name(name) in LABEL_NAMES | ID_NAMES
        ):
            columns.add(i)
    return {column for column in columns if column < width}


def _late_header(layout: Layout, columns: Columns) -> Columns:
    """Take a first line of numeric names as a header.

    Such a line looks like a sample, but its numbers are whole and differ, and its label is that of
    no other line.
    """
    if layout.has_header or len(columns.values) < 3:
        return columns
    first, label = layout.first, columns.texts[layout.width - 1]
    ids = [cell for i, cell in enumerate(first[:-1]) if i not in columns.textual]
    if (
        len(ids) < 3
        or not all(cell.isdigit() for cell in ids)
        or len(set(ids)) < len(ids)
        or label[0] in label[1:]
        or len(set(label[1:])) > len(label) / 2
    ):
        return columns
    rest = Columns(
        first,
        columns.values[1:],
        {i: cells[1:] for i, cells in columns.texts.items()},
        frozenset(),
    )
    rest.textual = frozenset(
        i
        for i, cells in rest.texts.items()
        if any(as_number(cell, layout.decimal) is None for cell in cells)
    )
    for i, cells in rest.texts.items():
        if i not in rest.textual:
            numbers = [as_number(cell, layout.decimal) for cell in cells]
            rest.values[:, i] = np.array(numbers, dtype=np.float32)
    line_of = columns.line_of
    rest.line_of = None if line_of is None else lambda row: line_of(row + 1)
    rest.notes = [
        f"the first line is taken as a header: its numbers are whole and differ, and its label, "
        f"{label[0]!r}, stands in no other line"
    ]
    return rest
