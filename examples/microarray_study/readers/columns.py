"""Decides which column of a table names the samples, which one labels them, which are features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from microarray_study.data_set import Features
from microarray_study.errors import InputError
from microarray_study.readers.layout import ID_NAMES, LABEL_NAMES, plain_name
from microarray_study.readers.raw_table import Columns, RawTable, as_number, is_missing, some
from microarray_study.readers.reading import Reading

WAY_OUT = (
    "--label NAME says which column holds the labels; if genes are in rows, --transpose says so"
)


@dataclass
class _Table:
    """A table and what is known about its columns so far."""

    path: object
    columns: Columns
    reading: Reading
    features: list[int]  # columns not yet known to be something else
    notes: list[str]

    def name(self, column: int) -> str:
        names = self.columns.names
        return (names[column] if names else "") or f"column {column + 1}"

    def is_text(self, column: int) -> bool:
        return column in self.columns.textual

    def take(self, column: int) -> None:
        self.features.remove(column)


def samples_in_rows(
    path: object, columns: Columns, reading: Reading, known: Collection[str] | None
) -> RawTable:
    """Make a table of samples of columns.

    With `known`, the names of features, no label is looked for, and columns of other names are left
    out where the table has names.

    Raises:
        InputError: the label column is not to be found, or looks like a gene; or text stands where
            a feature should be.
    """
    table = _Table(path, columns, reading, list(range(columns.values.shape[1])), [])
    _leave_out(table)
    label = None if known is not None else _named_label(table)
    if label is not None:
        table.take(label)
    sample_names = columns.row_names or _sample_names(table, known)
    if known is None and label is None:
        label = _found_label(table, sample_names)
        table.take(label)
    if known is not None and columns.names is not None:
        table.features = [i for i in table.features if columns.names[i] in known]
    _refuse_texts(table)
    labels = None
    if label is not None:
        labels = _cells(table, label)
    names = [columns.names[i] for i in table.features] if columns.names else None
    return RawTable(_selected(table), labels, names, sample_names, [*columns.notes, *table.notes])


def _selected(table: _Table) -> Features:
    """Return the features; neighbouring columns without a copy."""
    kept = table.features
    if kept and kept == list(range(kept[0], kept[-1] + 1)):
        return table.columns.values[:, kept[0] : kept[-1] + 1]
    return table.columns.values[:, kept]


def _cells(table: _Table, column: int) -> list[str]:
    texts = table.columns.texts.get(column)
    if texts is not None:
        return texts
    return [f"{value:.9g}" for value in table.columns.values[:, column]]


def _leave_out(table: _Table) -> None:
    """Leave out columns named by --ignore, and columns that have neither a name nor a value."""
    names = [table.name(column) for column in table.features]
    unknown = [name for name in table.reading.ignore if name not in names]
    if unknown:
        raise InputError(
            f"{table.path}: --ignore {unknown[0]!r} names no column; there are {some(names)}"
        )
    for column, name in enumerate(names):
        if name in table.reading.ignore:
            table.take(column)
        elif table.columns.names and not table.columns.names[column]:
            cells = table.columns.texts.get(column)
            missing = np.isnan(table.columns.values[:, column]).all()
            if missing and (cells is None or all(map(is_missing, cells))):
                table.take(column)
                table.notes.append(f"{name} has neither a name nor a value and is left out")


def _named_label(table: _Table) -> int | None:
    """Return the column named by --label, or else by a word such as `class`."""
    label, names = table.reading.label, table.columns.names
    if label is not None:
        found = [i for i in table.features if names is not None and names[i] == label]
        if len(found) == 1:
            return found[0]
        if not found and label in ("first", "last"):
            return table.features[0 if label == "first" else -1]
        held = ", ".join((names or [])[:4]) + (", ..." if names and len(names) > 4 else "")
        raise InputError(
            f"{table.path}: --label {label!r} must name one column of the first line, which holds "
            f"{held or 'no names'}; `first` and `last` name these columns"
        )
    if names is None:
        return None
    typical = [i for i in table.features if plain_name(names[i]) in LABEL_NAMES]
    if len(typical) != 1:
        return None
    table.notes.append(f"labels: column {names[typical[0]]!r}, after its name")
    return typical[0]


def _sample_names(table: _Table, known: Collection[str] | None) -> list[str] | None:
    """Take leading columns that are names or numbers of samples away from the features."""
    found: list[str] | None = None
    while len(table.features) > 1:
        column = table.features[0]
        named = table.columns.names is not None
        name = table.columns.names[column] if table.columns.names is not None else ""
        if known is not None and name in known:
            break
        reason = _why_names(table, column, name, named)
        if reason is None:
            break
        table.take(column)
        cells = _cells(table, column)
        found = cells if found is None or table.is_text(column) else found
        table.notes.append(f"{table.name(column)!r} is taken as sample names: {reason}")
    return found


def _why_names(table: _Table, column: int, name: str, named: bool) -> str | None:
    """Say why a first column names samples; None if it seems to be something else."""
    cells = table.columns.texts.get(column)
    if cells is None:
        return None
    unique = len(set(cells)) == len(cells)
    if table.is_text(column):
        if unique:
            return "its texts all differ"
        if named and name and plain_name(name) in ID_NAMES:
            return "its name says so"
        return None
    values = table.columns.values[:, column]
    whole = bool((values == np.floor(values)).all())  # a missing value is not whole
    if len(values) > 2 and whole and unique:
        least = float(values.min())
        counted = least in (0.0, 1.0) and float(values.max()) - least == len(values) - 1
        if counted:
            return f"it numbers the lines from {least:.0f} to {values.max():.0f}"
    if named and plain_name(name) in ID_NAMES:
        if unique:
            return "its name says so, and its values all differ"
        if whole:
            if name == "":
                raise InputError(
                    f"{table.path}: {table.name(column)} has no name and its whole numbers repeat: "
                    "it may be an index or the labels; --label first takes it as labels, --ignore "
                    f"'{table.name(column)}' leaves it out"
                )
            return "its name says so"
    return None


def _found_label(table: _Table, sample_names: list[str] | None) -> int:
    """Choose the label column where no name tells it: the only one of text, or the last one."""
    if not table.features:
        raise InputError(f"{table.path}: no column is left for labels; {WAY_OUT}")
    texts = [i for i in table.features if table.is_text(i)]
    last = table.features[-1]
    if len(texts) == 1:
        if texts[0] != last:
            table.notes.append(f"labels: {table.name(texts[0])!r}, the only column of text")
        return texts[0]
    if len(texts) > 1:
        raise _several_texts(table, texts, sample_names)
    _refuse_gene(table, last, sample_names)
    table.notes.append(f"labels: {table.name(last)!r}, the last column")
    return last


def _several_texts(table: _Table, texts: list[int], sample_names: list[str] | None) -> InputError:
    if len(texts) > len(table.features) / 2:
        row = next(
            (r for r in range(len(table.columns.values)) if _is_text_row(table, texts, r)), None
        )
        where = ""
        if row is not None:
            name = f" ({sample_names[row]!r})" if sample_names else ""
            where = f", as in row {row + 1}{name}"
        return InputError(
            f"{table.path}: nearly every column holds text{where}; if genes are in rows, "
            "--transpose says so"
        )
    return InputError(
        f"{table.path}: several columns hold text: {some([table.name(i) for i in texts])}; "
        "--label NAME says which one holds the labels, --ignore NAMES leaves the others out"
    )


def _is_text_row(table: _Table, texts: list[int], row: int) -> bool:
    return all(as_number(table.columns.texts[i][row]) is None for i in texts)


def _refuse_gene(table: _Table, column: int, sample_names: list[str] | None) -> None:
    """Refuse a label column that looks like one more gene, or like one more sample."""
    values = table.columns.values[:, column]
    others = [i for i in table.features if i != column]
    rows = len(values)
    known = values[~np.isnan(values)]
    different = len(np.unique(known))
    wrong = None
    if (known != np.floor(known)).any():
        wrong = "its numbers are no whole ones"
    elif different > max(2, rows / 2):
        wrong = f"it holds {different:,} different numbers in {rows:,} rows"
    elif rows >= 2 * len(others) and sample_names and not sample_names[0].isdigit():
        wrong = (
            f"there are {rows:,} rows, which begin with names such as {sample_names[0]!r}, and "
            f"{len(others):,} columns"
        )
    if wrong is None and rows >= 2 * len(others) and others:
        near = table.columns.values[:, others]
        if np.isin(known, near).all() and set(np.unique(near[:, -1])) <= set(np.unique(known)):
            wrong = (
                f"its values are those of the other columns, and there are {rows:,} rows and "
                f"{len(others):,} other columns"
            )
    if wrong is not None:
        raise InputError(
            f"{table.path}: the last column, {table.name(column)!r}, would be the label, but looks "
            f"like measurements: {wrong}. {WAY_OUT}"
        )


def _refuse_texts(table: _Table) -> None:
    texts = [i for i in table.features if table.is_text(i)]
    if not texts:
        return
    column = texts[0]
    cells = table.columns.texts[column]
    row = next(i for i, cell in enumerate(cells) if as_number(cell) is None)
    line_of = table.columns.line_of
    where = f"row {row + 1}" if line_of is None else f"line {line_of(row)}"
    named = f" ({table.name(column)!r})" if table.columns.names else ""
    raise InputError(
        f"{table.path}, {where}, column {column + 1}{named}: expected a number, got "
        f"{cells[row]!r}; only the label column may hold text (the last one, or the one named by "
        "--label); --ignore NAMES leaves columns out"
    )
