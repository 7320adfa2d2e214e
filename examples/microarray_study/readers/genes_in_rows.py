"""Reads text that has a gene in each line and a sample in each column."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from microarray_study.errors import InputError
from microarray_study.readers.cells import read_cells
from microarray_study.readers.layout import LABEL_NAMES, Layout, fields, plain_name
from microarray_study.readers.open_text import open_text
from microarray_study.readers.raw_table import Columns, RawTable, as_number, some
from microarray_study.readers.reading import Reading

PROBED = 4  # cells of a line that tell whether it holds numbers


@dataclass(frozen=True)
class _TextRow:
    """A line that holds texts beyond its first cells: labels, or other facts about the samples."""

    line: int  # after the header, from 0
    name: str
    cells: list[str]


def read_genes_in_rows(layout: Layout, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read the table that `--transpose` announces.

    The first column names the genes, the first line the samples. The labels are in a line of texts,
    or in the line that `--label` names, or in the first line itself if each of its texts occurs
    several times.

    Raises:
        InputError: no line holds labels, or several may.
    """
    layout = replace(layout, has_header=_has_header(layout))
    rows = _text_rows(layout)
    named = _gene_columns(layout)
    left_out = [row.line for row in rows]
    columns = read_cells(layout, {0, *named, layout.width - 1}, left_out)
    names = columns.texts[named[-1] if len(named) == 1 else named[0]] if named else None
    table = gene_table(columns, named, names)
    if len(named) > 1:
        table.notes.append(f"{len(named) - 1} columns of text beside the gene names are left out")
    head = layout.names[len(named) :] if layout.names else None
    table.sample_names = head
    table.notes.insert(0, "genes are in rows")
    facts = {row.name: row.cells[len(named) :] for row in rows}
    if known is None:
        _add_labels(table, layout, reading, facts)
    if table.sample_names is None or len(set(table.sample_names)) < len(table.sample_names):
        table.sample_names = None
    leave_out_genes(table, reading, str(layout.path), facts)
    return table


def gene_table(
    columns: Columns, text_columns: Collection[int], names: list[str] | None
) -> RawTable:
    """Return the transposed numbers of a table of genes in rows."""
    kept = [i for i in range(columns.values.shape[1]) if i not in text_columns]
    wrong = [i for i in kept if i in columns.textual]
    if wrong:
        cells = columns.texts[wrong[0]]
        row = next(i for i, cell in enumerate(cells) if as_number(cell) is None)
        line = columns.line_of(row) if columns.line_of else row + 1
        raise InputError(
            f"line {line}, column {wrong[0] + 1}: expected a number, got {cells[row]!r}"
        )
    values = np.ascontiguousarray(columns.values[:, kept].T)
    return RawTable(values, feature_names=names)


def leave_out_genes(
    table: RawTable, reading: Reading, path: str, facts: Collection[str] = ()
) -> None:
    """Leave out the rows that --ignore names."""
    names = list(table.feature_names or ())
    unknown = [name for name in reading.ignore if name not in names and name not in facts]
    if unknown:
        raise InputError(f"{path}: --ignore {unknown[0]!r} names no row")
    kept = [i for i, name in enumerate(names) if name not in reading.ignore]
    if reading.ignore and len(kept) < len(names):
        table.values = table.values[:, kept]
        table.feature_names = [names[i] for i in kept]


def _has_header(layout: Layout) -> bool:
    first, rows = layout.first, layout.rows
    if layout.width > len(first):
        return True
    cells = first[1:]
    if any(as_number(cell, layout.decimal) is None for cell in cells):
        return True
    return bool(rows) and all(cell.isdigit() for cell in cells) and len(set(cells)) == len(cells)


def _numeric_rows(layout: Layout) -> list[list[str]]:
    return [row for row in layout.rows if as_number(row[-1], layout.decimal) is not None]


def _gene_columns(layout: Layout) -> list[int]:
    """Return the first columns that name or describe genes."""
    rows = _numeric_rows(layout) or layout.rows
    columns = []
    for column in range(layout.width - 1):
        cells = [row[column] for row in rows if column < len(row)]
        text = any(as_number(cell, layout.decimal) is None for cell in cells)
        ids = (
            column == 0
            and all(cell.isdigit() for cell in cells)
            and len(set(cells)) == len(cells)
            and layout.has_header
        )
        short = column == 0 and layout.width > len(layout.first)
        if not (text or ids or short):
            break
        columns.append(column)
    return columns


def _text_rows(layout: Layout) -> list[_TextRow]:
    """Find the lines that hold texts where other lines hold numbers."""
    delimiter = None if layout.delimiter == " " else layout.delimiter
    found = []
    with open_text(layout.path) as text:
        for _ in range(layout.head_lines):
            text.readline()
        for number, line in enumerate(text):
            tail = line.rstrip("\r\n").rsplit(delimiter, PROBED)[1:]
            if any(as_number(cell.strip(' "'), layout.decimal) is None for cell in tail[-2:]):
                cells = fields(line, layout.delimiter)
                if sum(as_number(c, layout.decimal) is None for c in cells) > len(cells) / 2:
                    found.append(_TextRow(number, cells[0], cells))
    return found


def _add_labels(
    table: RawTable, layout: Layout, reading: Reading, facts: dict[str, list[str]]
) -> None:
    """Find the labels: in the row that --label names, in the only row of text, in the header."""
    names = list(table.feature_names or ())
    label = reading.label
    if label is None:
        typical = [name for name in (*facts, *names) if plain_name(name) in LABEL_NAMES]
        if len(typical) == 1:
            label = typical[0]
        elif len(facts) == 1:
            label = next(iter(facts))
    if label in facts:
        table.labels = facts[label]
        table.notes.append(f"labels: row {label!r}")
        return
    if label is not None and names.count(label) == 1:
        row = names.index(label)
        table.labels = table.values[:, row].copy()
        table.values = np.delete(table.values, row, axis=1)
        table.feature_names = names[:row] + names[row + 1 :]
        table.notes.append(f"labels: row {label!r}")
        return
    header = table.sample_names
    if label in (None, "header") and header and min(map(list(header).count, header)) > 1:
        table.labels, table.sample_names = list(header), None
        table.notes.append("labels: the first line, whose texts all occur several times")
        return
    held = [*facts, *names]
    about = f"--label {label!r} must name one row" if label else "no row holds the labels"
    if label is None and facts:
        about = f"several rows hold text: {some(list(facts))}"
    raise InputError(
        f"{layout.path}: {about}; rows are genes (--transpose), and one of them must hold the "
        f"label of each sample; --label NAME says which, of {some(held)}"
    )
