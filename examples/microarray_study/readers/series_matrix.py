"""Reads series matrix files of the Gene Expression Omnibus (GEO); genes are in rows."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from microarray_study.errors import InputError
from microarray_study.readers.cells import read_cells
from microarray_study.readers.genes_in_rows import gene_table, leave_out_genes
from microarray_study.readers.layout import Layout, fields
from microarray_study.readers.open_text import open_text
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading
from microarray_study.readers.sample_facts import choose_fact

BEGIN, END = "!series_matrix_table_begin", "!series_matrix_table_end"
# Facts that may tell the class where the characteristics do not.
OTHER_FACTS = ("!Sample_title", "!Sample_source_name_ch1", "!Sample_description")


def is_series_matrix(path: Path) -> bool:
    """Whether the first line that is not empty is that of a series matrix."""
    with open_text(path) as text:
        for line in text:
            if line.strip():
                return line.startswith(("!Series_", "!Sample_"))
    return False


def read_series_matrix(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read a series matrix; the label is a sample characteristic such as `tissue: tumor`.

    `--characteristic` chooses among several; `title`, `source_name` and `description` of the
    samples may be chosen, too. The lines of characteristics may hold different facts in each
    sample: what stands before the colon decides.

    Raises:
        InputError: the table is lacking or empty, or it is not clear which characteristic is meant.
    """
    characteristics: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    accessions: list[str] = []
    before = rows = 0
    ended = False
    with open_text(path) as text:
        for line in text:
            before += 1
            if line.startswith(BEGIN):
                break
            if line.startswith("!Sample_characteristics_ch"):
                _add_characteristics(characteristics, fields(line, "\t")[1:])
            elif line.startswith("!Sample_geo_accession"):
                accessions = fields(line, "\t")[1:]
            elif line.startswith(OTHER_FACTS):
                name, *cells = fields(line, "\t")
                others[name.removeprefix("!Sample_").removesuffix("_ch1")] = cells
        else:
            raise InputError(f"{path}: is no whole series matrix: there is no line {BEGIN}")
        header = fields(text.readline(), "\t")
        for line in text:
            if line.startswith(END):
                ended = True
                break
            rows += bool(line.strip())
    if not ended:
        raise InputError(f"{path}: is no whole series matrix: there is no line {END}")
    if rows == 0 or len(header) < 2:
        raise InputError(
            f"{path}: its table is empty, as GEO leaves it where the numbers (of sequencing, "
            "often) are in a supplementary file; read that file instead"
        )
    layout = Layout(path, "\t", ".", header, [], before, has_header=True)
    columns = read_cells(layout, {0, len(header) - 1}, rows=rows)
    table = gene_table(columns, {0}, columns.texts[0])
    table.sample_names = header[1:]
    leave_out_genes(table, reading, str(path))
    if known is None:
        facts = _in_order(characteristics, accessions, header[1:])
        others = _in_order(others, accessions, header[1:])
        asked = reading.characteristic or reading.label
        if asked is not None and asked.lower() in others and asked.lower() not in facts:
            facts = {asked.lower(): others[asked.lower()]}
        elif asked is None and not facts:
            facts = others
        name = choose_fact(path, facts, asked, "--characteristic")
        table.labels = facts[name]
        table.notes.append(f"labels: the sample characteristic {name!r}")
    return table


def _add_characteristics(facts: dict[str, list[str]], cells: list[str]) -> None:
    """Add a line of cells `name: value`; a cell without a name belongs to `characteristic`."""
    for sample, cell in enumerate(cells):
        if not cell:
            continue
        name, colon, value = cell.partition(":")
        name, value = (name.strip().lower(), value.strip()) if colon else ("characteristic", cell)
        values = facts.setdefault(name, [""] * len(cells))
        if not values[sample]:
            values[sample] = value


def _in_order(
    facts: dict[str, list[str]], accessions: list[str], columns: list[str]
) -> dict[str, list[str]]:
    """Put the facts into the order of the columns of the table."""
    if not accessions or accessions == columns or not set(columns) <= set(accessions):
        return facts
    places = [accessions.index(name) for name in columns]
    return {name: [values[i] for i in places] for name, values in facts.items()}
