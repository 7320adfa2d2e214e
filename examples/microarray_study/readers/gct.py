"""Reads GCT files of the Broad Institute, versions 1.2 and 1.3; genes are in rows."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from microarray_study.errors import InputError
from microarray_study.readers.cells import read_cells
from microarray_study.readers.genes_in_rows import gene_table, leave_out_genes
from microarray_study.readers.layout import Layout, fields
from microarray_study.readers.open_text import open_text
from microarray_study.readers.raw_table import RawTable, as_number
from microarray_study.readers.reading import Reading
from microarray_study.readers.sample_facts import choose_fact

VERSIONS = ("#1.2", "#1.3")


def is_gct(path: Path) -> bool:
    """Whether the first line is that of a GCT file."""
    with open_text(path) as text:
        return text.readline(64).strip() in VERSIONS


def read_gct(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read a GCT file.

    In version 1.3 the label is one of the facts about the samples that stand above the numbers. In
    version 1.2 it is in a `.cls` file of the same name beside it.

    Raises:
        InputError: the head is not that of a GCT file, or there is no label.
    """
    with open_text(path) as text:
        version = text.readline().strip()
        sizes = fields(text.readline(), "\t")
        header = fields(text.readline(), "\t")
        if version not in VERSIONS:
            raise InputError(
                f"{path}: expected {' or '.join(VERSIONS)} in the first line, got {version[:40]!r}"
            )
        count = 2 if version == "#1.2" else 4
        wrong = len(sizes) < count or not all(cell.isdigit() for cell in sizes[:count])
        if wrong:
            raise InputError(
                f"{path}, line 2: expected the numbers of rows and columns, got {sizes[:4]}"
            )
        rows, samples = int(sizes[0]), int(sizes[1])
        described, facts_count = (1, 0) if version == "#1.2" else (int(sizes[2]), int(sizes[3]))
        head = 1 + described
        lines = [fields(text.readline(), "\t") for _ in range(facts_count)]
    if len(header) != head + samples:
        raise InputError(
            f"{path}, line 3: expected {head + samples} cells ({head} about the genes and "
            f"{samples} samples, as line 2 says), got {len(header)}"
        )
    facts = {cells[0]: cells[head:] for cells in lines}
    layout = Layout(path, "\t", ".", header, [], 2 + facts_count, has_header=True)
    columns = read_cells(layout, {*range(head), len(header) - 1})
    if len(columns.values) != rows:
        raise InputError(
            f"{path}: line 2 says {rows:,} rows of numbers, got {len(columns.values):,}; is the "
            "file cut off?"
        )
    table = gene_table(columns, range(head), columns.texts[0])
    table.sample_names = header[head:]
    leave_out_genes(table, reading, str(path))
    if known is None:
        table.labels, note = _labels(path, facts, reading, samples)
        table.notes.append(note)
    return table


def _labels(
    path: Path, facts: dict[str, list[str]], reading: Reading, samples: int
) -> tuple[list[str], str]:
    if facts:
        name = choose_fact(path, facts, reading.label or reading.characteristic, "--label")
        return facts[name], f"labels: {name!r}"
    beside = _class_file(path)
    if not beside.is_file():
        raise InputError(
            f"{path}: this version of GCT holds no labels; they must be in {beside.name} beside it "
            "(a class file of GSEA), or above the numbers as in version 1.3"
        )
    with open_text(beside) as text:
        lines = [line.split() for line in text if line.strip()]
    named = len(lines) == 3 and lines[1][:1] == ["#"]
    if not named or len(lines[2]) != samples:
        raise InputError(
            f"{beside}: expected three lines: the counts, # with the names of the classes, and "
            f"{samples} labels; got {len(lines)} lines{', ' if lines else ''}"
            f"{len(lines[-1]) if lines else 0} cells in the last"
        )
    names, labels = lines[1][1:], lines[2]
    # Numbers count the names of line 2 in the order in which the labels first appear.
    if all(as_number(label) is not None for label in labels):
        order = list(dict.fromkeys(labels))
        if len(order) == len(names):
            labels = [names[order.index(label)] for label in labels]
    return labels, f"labels: from {beside.name}"


def _class_file(path: Path) -> Path:
    base = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return base.with_suffix(".cls")
