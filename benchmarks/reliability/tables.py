"""Data files, written in many ways and damaged: refused, or read as the table that they hold.

A trial writes a table that it knows in one of the formats of `examples/microarray.py`, damages the
file or leaves it whole, and reads it. What is read may differ from the table in the cells that the
damage touched, and in no others: a lost cell may not move its neighbours into other columns.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .table_files import BINARY, CHECKED, TEXTS, Layout, Table, write_binary, write_text

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from microarray_study.data_set import DataSet
from microarray_study.errors import InputError
from microarray_study.readers import Reading, read, try_out
from microarray_study.readers.read_all import read_all

STATUS_OF_READER = try_out.status_of_reader


@dataclass
class Damage:
    """What was done to a file.

    Attributes:
        kind: in a word; "none" for a whole file.
        cells: at most so many cells may be read differently; None: no statement is possible.
        samples: at most so many samples may be lost; None: any number, at the end.
    """

    kind: str = "none"
    cells: int | None = 0
    samples: int | None = 0


def trial(seed: int) -> str:
    """Write a table, damage it, read it."""
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    # To start Python for each MATLAB or HDF5 file would take most of the time of a campaign.
    try_out.status_of_reader = status_of_fork if rng.random() < 0.95 else STATUS_OF_READER
    table = Table.made(rng)
    with tempfile.TemporaryDirectory() as folder:
        if rng.random() < 0.65:
            name = rng.choice(sorted(TEXTS))
            layout = Layout.drawn(rng, name)
            text = write_text(table, layout)
            damage = Damage()
            if rng.random() < 0.7:
                text, damage = damaged_text(text, layout, rng)
            path = Path(folder) / f"table{layout.ending}"
            content = text.encode(layout.encoding)
            path.write_bytes(gzip.compress(content, mtime=0) if layout.packed else content)
            reading = Reading(label=layout.label_asked, transpose=layout.genes_in_rows)
        else:
            name = rng.choice(sorted(BINARY))
            path = write_binary(table, name, Path(folder), rng)
            damage = Damage()
            reading = Reading(label="tissue" if name in ("h5ad", "parquet") else None)
            if rng.random() < 0.8:
                damage = damaged_bytes(path, name, rng)
        if rng.random() < 0.05:
            reading, damage = strange_reading(rng), Damage("strange options", None, None)
        try:
            data = read(path, reading)
        except InputError as error:
            said = "whole" if damage.kind == "none" else "damaged"
            return f"WRONG: no reason: {name}" if not str(error).strip() else f"{said}, refused"
    if name == "mat 7.3":
        table = table.with_numbers_for_labels()
    problem = difference(table, data, damage)
    if problem:
        return f"WRONG: {name}, {damage.kind}: {problem}"
    return "whole, read as it is" if damage.kind == "none" else "damaged, read as what it holds"


def status_of_fork(path: Path, limit: float) -> int | None:
    """Do in a fork of this process, which has one thread, what the example does in a fresh one."""
    child = os.fork()
    if child == 0:
        signal.alarm(int(limit))
        read_all(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return None if number == signal.SIGALRM else -number


def strange_reading(rng: random.Random) -> Reading:
    """Return options that do not fit the file."""
    return Reading(
        label=rng.choice((None, "first", "last", "nothing", "GENE3", "")),
        transpose=rng.random() < 0.5,
        missing=rng.choice(("refuse", "median", "drop-features", "drop-samples")),
        unlabelled=rng.choice(("refuse", "drop")),
    )


# Damages of a text


def damaged_text(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    """Damage a text somewhere, most often in its lines of numbers."""
    kind = rng.choice(sorted(TEXT_DAMAGES))
    return TEXT_DAMAGES[kind](text, layout, rng)


def _span(text: str, rng: random.Random) -> tuple[int, int]:
    start = rng.randrange(len(text))
    return start, min(len(text), start + rng.choice((1, 1, 1, 2, 3, 6)))


def _touched(piece: str, layout: Layout, kind: str) -> Damage:
    """Bound what a changed piece of text can change: its cells, their neighbours, its lines."""
    lines = piece.count("\n") + piece.count("\r")
    cells = sum(piece.count(mark) for mark in (layout.delimiter, ",", ";", "\t", " ", '"'))
    return Damage(kind, cells + 2 * lines + 2, lines + 1)


def _replace(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    start, stop = _span(text, rng)
    marks = [layout.delimiter, '"', "'", "\n", "\r", "\0", "x", "9", "-", ".", ",", "e", "#", "%"]
    piece = "".join(rng.choice([*marks, chr(rng.randrange(32, 1000))]) for _ in range(stop - start))
    damage = _touched(text[start:stop] + piece, layout, "replaced")
    return text[:start] + piece + text[stop:], damage


def _delete(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    start, stop = _span(text, rng)
    return text[:start] + text[stop:], _touched(text[start:stop], layout, "deleted")


def _insert(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    start = rng.randrange(len(text))
    piece = rng.choice((layout.delimiter, '"', "\n", "\r\n", "\0", " ", "1", "NA", "'", "\ufeff"))
    return text[:start] + piece + text[start:], _touched(piece, layout, "inserted")


def _cut(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    # Where genes are in rows, a cut at the end of a line loses genes, which nothing can notice.
    return text[: rng.randrange(len(text))], Damage("cut", 2, None)


def _drop_cell(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    lines = text.split("\n")
    row = rng.randrange(len(lines))
    cells = lines[row].split(layout.delimiter)
    del cells[rng.randrange(len(cells))]
    lines[row] = layout.delimiter.join(cells)
    return "\n".join(lines), Damage("a cell dropped", 2, 1)


def _double_cell(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    lines = text.split("\n")
    row = rng.randrange(len(lines))
    cells = lines[row].split(layout.delimiter)
    at = rng.randrange(len(cells))
    lines[row] = layout.delimiter.join([*cells[:at], cells[at], *cells[at:]])
    return "\n".join(lines), Damage("a cell doubled", 2, 1)


def _drop_line(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    lines = text.split("\n")
    del lines[rng.randrange(len(lines))]
    return "\n".join(lines), Damage("a line dropped", 0, 1)


def _double_line(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    return "\n".join([*lines[:at], lines[at], *lines[at:]]), Damage("a line doubled", 1, 0)


def _join_lines(text: str, layout: Layout, rng: random.Random) -> tuple[str, Damage]:
    lines = text.split("\n")
    at = rng.randrange(len(lines) - 1)
    joined = lines[at] + rng.choice(("", layout.delimiter)) + lines[at + 1]
    return "\n".join([*lines[:at], joined, *lines[at + 2 :]]), Damage("lines joined", 2, 2)


TEXT_DAMAGES: dict[str, Callable[[str, Layout, random.Random], tuple[str, Damage]]] = {
    function.__name__: function
    for function in (
        _replace,
        _delete,
        _insert,
        _cut,
        _drop_cell,
        _double_cell,
        _drop_line,
        _double_line,
        _join_lines,
    )
}


def damaged_bytes(path: Path, name: str, rng: random.Random) -> Damage:
    """Damage a binary file; where the format has no checksums, its numbers may change."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "flip", "cut", "zero", "insert", "overwrite"))
    at = rng.randrange(len(content) if rng.random() < 0.7 else min(512, len(content)))
    length = rng.choice((1, 4, 8, 64))
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 8))):
            content[min(len(content) - 1, at + rng.randrange(64))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "zero":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif kind == "insert":
        content[at:at] = rng.randbytes(length)
    else:
        content[at : at + length] = rng.randbytes(len(content[at : at + length]))
    path.write_bytes(bytes(content))
    return Damage(f"bytes, {kind}", 0 if name in CHECKED else None, 0)


# What was read, beside what was written


@dataclass
class _Found:
    lines: list[int] = field(default_factory=list)
    cells: int = 0


def difference(table: Table, data: DataSet, damage: Damage) -> str:
    """Say in what the data that were read differ from the table more than the damage explains."""
    values = np.asarray(data.features)
    if not np.isfinite(values).all() or len(data.labels) != len(values):
        return "the data are not finite, or labels are missing"
    if damage.cells is None:
        return ""
    places = _places(table, data)
    known = [i for i, place in enumerate(places) if place is not None]
    strange = len(places) - len(known)
    lost = len(table.genes) - len({place for place in places if place is not None})
    if strange + (0 if damage.samples is None else lost) > damage.cells + (damage.samples or 0):
        return f"{strange} features of other names, {lost} of {len(table.genes)} lost"
    if not known:
        return "" if damage.kind == "cut" else "no feature is known by its name"
    expected = table.values[:, [p for p in places if p is not None]].astype(np.float32)
    found = values[:, known]
    seen, wrong = set(), 0
    for row, number in zip(found, data.labels, strict=True):
        differing = (~np.isclose(expected, row, rtol=1e-5, atol=1e-30)).sum(axis=1)
        best = int(differing.argmin())
        wrong += int(differing[best]) + (_plain(data.classes[number]) != table.labels[best])
        seen.add(best)
    if wrong > damage.cells:
        return f"{wrong} cells or labels are those of no sample"
    if damage.samples is not None and len(table.labels) - len(seen) > damage.samples:
        return f"{len(table.labels) - len(seen)} samples are lost"
    return ""


def _places(table: Table, data: DataSet) -> list[int | None]:
    """Return which gene of the table each feature is, by its name."""
    if not data.feature_names or data.feature_names[0].startswith("feature "):
        whole = len(data.feature_names) in (0, len(table.genes))
        return list(range(len(table.genes))) if whole else [None] * values_wide(data)
    return [table.genes.index(name) if name in table.genes else None for name in data.feature_names]


def values_wide(data: DataSet) -> int:
    """Return the number of features."""
    return int(data.features.shape[1])


def _plain(label: str) -> str:
    return label.strip().casefold()
