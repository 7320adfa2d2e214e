"""Finds out how a delimited text is written: delimiter, decimal sign, header."""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from microarray_study.errors import InputError
from microarray_study.readers.open_text import open_text
from microarray_study.readers.raw_table import as_number

DELIMITERS = {"\t": "tab", ";": "semicolon", ",": "comma", " ": "space"}
LINES = 12  # looked at before the rest is read,
CHARACTERS = 2**20  # or fewer lines, if they are long
QUOTED = re.compile(r'"[^"]*"')
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
# Names of columns, in lower case without punctuation, that say what the column is.
LABEL_NAMES = frozenset(("class", "classes", "label", "labels", "target", "targets", "y", "gnd"))
ID_NAMES = frozenset(
    (
        *("", "id", "ids", "index", "name", "names", "rowname", "rownames", "rownumber"),
        *("sample", "samples", "sampleid", "samplename", "sampleids", "samplenames"),
        *("patient", "patientid", "subject", "subjectid", "barcode", "cell", "cellid"),
        *("geoaccession", "accession", "unnamed0", "x1"),
    )
)


@dataclass(frozen=True)
class Layout:
    """How a text is delimited, its first line, and some of the lines after it."""

    path: Path
    delimiter: str
    decimal: str
    first: list[str]
    rows: list[list[str]]
    skipped: int = 0  # lines before the first one of the table
    has_header: bool = False

    @property
    def width(self) -> int:
        """The number of cells of a line of numbers."""
        return len(self.first) + _leaves_out_a_name(self.first, self.rows)

    @property
    def names(self) -> list[str] | None:
        """The names of the columns; R leaves out the name of the column of row names."""
        if not self.has_header:
            return None
        return [""] * (self.width - len(self.first)) + self.first

    @property
    def head_lines(self) -> int:
        """The number of lines before the first line of numbers."""
        return self.skipped + self.has_header

    @property
    def notes(self) -> list[str]:
        """What was found out, where it is not as everywhere."""
        found = []
        if self.delimiter != ",":
            found.append(f"cells are separated by a {DELIMITERS[self.delimiter]}")
        if self.decimal == ",":
            found.append("numbers have a decimal comma")
        if self.skipped:
            found.append(f"{self.skipped} lines before the table are left out")
        return found


def plain_name(name: str) -> str:
    """Return a name in lower case with nothing but letters and digits."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def fields(line: str, delimiter: str) -> list[str]:
    """Split one line into its cells, without the spaces and quotes around them."""
    line = line.rstrip("\r\n")
    if delimiter == " ":
        return [cell.strip('"') for cell in re.findall(r'"[^"]*"|[^\s"]+', line)]
    if '"' not in line:
        return [cell.strip() for cell in line.split(delimiter)]
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter), [])]
    except csv.Error:  # a cell too long for Python's reader: split without regard to quotes
        return [cell.strip().strip('"') for cell in line.split(delimiter)]


def find_layout(path: Path) -> Layout:
    """Look at the first lines of a text.

    Raises:
        InputError: the file is empty, or its lines cannot be split into cells.
    """
    with open_text(path) as text:
        skipped, lines = _first_lines(text)
    if not lines:
        raise InputError(f"{path}: is empty; expected one sample a line: numbers, then a label")
    if "\0" in lines[0]:
        raise InputError(f"{path}: is no readable text: it holds zero bytes")
    delimiter = _delimiter(path, lines)
    cells = [fields(line, delimiter) for line in lines]
    first, rows = cells[0], [row for row in cells[1:] if any(row)]
    if len(first) < 2 and (not rows or len(rows[0]) < 2):
        raise InputError(
            f"{path}: a line needs at least one number and a label, separated by commas, tabs or "
            f"semicolons, got {lines[0].strip()[:40]!r}"
        )
    decimal = _decimal(path, delimiter, rows or [first])
    _refuse_a_lost_name(path, first, rows, decimal)
    return Layout(path, delimiter, decimal, first, rows, skipped)


def with_header(layout: Layout, names: Collection[str]) -> Layout:
    """Decide whether the first line is a header; one of `names` in it settles the question."""
    first, rows = layout.first, layout.rows
    named = any(cell in names for cell in first)
    return replace(layout, has_header=named or _is_header(first, rows, layout.decimal))


def _leaves_out_a_name(first: list[str], rows: list[list[str]]) -> bool:
    """Whether the first line has one cell less than all others, as R writes headers."""
    return bool(rows) and all(len(row) == len(first) + 1 for row in rows)


def _refuse_a_lost_name(path: Path, first: list[str], rows: list[list[str]], decimal: str) -> None:
    """Refuse a first line with one name less than columns, unless the first column names the lines.

    R leaves out the name of that column. A name that got lost elsewhere would give each column
    before it the name of the one on its left.
    """
    if not _leaves_out_a_name(first, rows):
        return
    names = [row[0] for row in rows]
    texts = all(as_number(name, decimal) is None for name in names)
    name_lines = len(set(names)) == len(names) and (texts or all(n.isdigit() for n in names))
    if plain_name(first[0]) in ID_NAMES or not name_lines:
        raise InputError(
            f"{path}: the first line has {len(first):,} names for {len(first) + 1:,} columns; "
            "which one is lacking?"
        )


def _is_header(first: list[str], rows: list[list[str]], decimal: str) -> bool:
    if not rows:
        return all(as_number(cell, decimal) is None for cell in first[:-1])
    if _leaves_out_a_name(first, rows):
        return True
    if plain_name(first[0]) in ID_NAMES and as_number(rows[0][0], decimal) != as_number("nan"):
        return True
    if any(plain_name(cell) in LABEL_NAMES for cell in (first[0], first[-1])):
        return True
    numeric = [
        column
        for column in range(min(len(first), *map(len, rows)))
        if all(as_number(row[column], decimal) is not None for row in rows)
    ]
    if any(as_number(first[column], decimal) is None for column in numeric):
        return True
    ids = [first[column] for column in numeric if column not in (0, len(first) - 1)]
    return counts_up(ids) or (
        len(ids) > 2
        and all(cell.isdigit() for cell in ids)
        and len(set(ids)) == len(ids)
        and any(not row[column].lstrip("+-").isdigit() for row in rows for column in numeric[1:-1])
    )


def counts_up(cells: list[str]) -> bool:
    """Whether cells are whole numbers, each one more than the last, as pandas numbers columns."""
    if len(cells) < 3 or not all(cell.isdigit() for cell in cells):
        return False
    return [int(cell) for cell in cells] == [int(cells[0]) + i for i in range(len(cells))]


def _first_lines(text: TextIO) -> tuple[int, list[str]]:
    """Return how many lines are empty or comments at the start, and the lines after them."""
    skipped = 0
    lines: list[str] = []
    for line in text:
        if not lines and (not line.strip() or line.startswith("#")):
            skipped += 1
        elif line.strip():
            lines.append(line)
        if len(lines) == LINES or (len(lines) > 3 and sum(map(len, lines)) > CHARACTERS):
            break
    return skipped, lines


def _delimiter(path: Path, lines: list[str]) -> str:
    """Choose the delimiter that cuts all lines into equally many cells.

    The first line may have one cell less, as R writes it.
    """
    bare = [QUOTED.sub("x", line).strip("\r\n") for line in lines]
    for delimiter in DELIMITERS:
        if delimiter == " " and any("\t" in line for line in bare):
            continue  # tabs separate cells, if not equally many in all lines
        if delimiter == " ":
            counts = [len(line.split()) - 1 for line in bare]
        else:
            counts = [line.count(delimiter) for line in bare]
        later = counts[1:] or counts
        if min(later) == max(later) > 0 and 0 <= later[0] - counts[0] <= 1:
            return delimiter
    # Uneven lines: the reader will name the line, once it knows what separates its cells.
    return max((d for d in DELIMITERS if d != " "), key=lambda d: bare[0].count(d))


def _decimal(path: Path, delimiter: str, rows: list[list[str]]) -> str:
    if delimiter == ",":
        return "."
    cells = [cell for row in rows for cell in row]
    commas = [cell for cell in cells if DECIMAL_COMMA.fullmatch(cell)]
    groups = [cell for cell in cells if THOUSANDS.fullmatch(cell)]
    several = [cell for cell in groups if cell.count(",") > 1]
    small = any(cell.isdigit() and len(cell) < 4 for row in rows for cell in row[1:-1])
    if several or (groups and delimiter != ";" and len(groups) == len(commas) and small):
        raise InputError(
            f"{path}: numbers such as {(several or groups)[0]!r} seem to have commas between "
            "thousands, which cannot be told from decimal commas; save them without"
        )
    if commas and not any(DECIMAL_POINT.fullmatch(cell) for cell in cells):
        return ","
    return "."
