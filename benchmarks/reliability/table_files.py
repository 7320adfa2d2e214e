"""Writes a known table of genes in the many ways in which people's files are written."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import io, sparse

TEXTS = ("arff", "delimited", "gct", "genes in rows", "series matrix")
BINARY = ("h5ad", "mat", "mat 7.3", "npz", "parquet")
CHECKED = ("npz",)  # formats whose numbers have checksums: damage in them must be noticed
LABELS = ("tumor", "normal", "benign")


@dataclass(frozen=True)
class Table:
    """Samples x genes with three decimals, all different, and a label in lower case for each."""

    values: npt.NDArray[np.float64]
    labels: list[str]
    genes: list[str]
    samples: list[str]

    @classmethod
    def made(cls, rng: random.Random) -> Table:
        """Draw a table of 6 to 16 samples and 12 to 30 genes."""
        rows, columns = rng.randrange(6, 17), rng.randrange(12, 31)
        numbers = rng.sample(range(-9999, 10000), rows * columns)
        classes = LABELS[: rng.choice((2, 2, 3))]
        labels = [classes[i % len(classes)] for i in range(rows)]
        rng.shuffle(labels)
        return cls(
            np.array(numbers).reshape(rows, columns) / 1000 + 0.0005,
            labels,
            [f"GENE{number}" for number in range(columns)],
            [f"patient{number}" for number in range(rows)],
        )

    def with_numbers_for_labels(self) -> Table:
        """Return the table with `1`, `2`, ... for the labels."""
        order = sorted(set(self.labels))
        return replace(self, labels=[str(order.index(label) + 1) for label in self.labels])


@dataclass(frozen=True)
class Layout:
    """How a text is written."""

    format: str
    delimiter: str = "\t"
    decimal: str = "."
    index: str = "none"  # "none", "names", "numbers", "unnamed"
    label_place: str = "last"  # "last", "first", "middle"
    label_name: str = "tissue"
    label_asked: str | None = "tissue"
    quoted: bool = False
    newline: str = "\n"
    encoding: str = "utf-8"
    packed: bool = False
    end: str = "\n"

    @property
    def genes_in_rows(self) -> bool:
        """Whether the user must say that genes are in rows."""
        return self.format == "genes in rows"

    @property
    def ending(self) -> str:
        """The ending of the file."""
        kinds = {"arff": ".arff", "gct": ".gct", "series matrix": ".txt"}
        plain = kinds.get(self.format, ".csv" if self.delimiter == "," else ".tsv")
        return plain + (".gz" if self.packed else "")

    @classmethod
    def drawn(cls, rng: random.Random, kind: str) -> Layout:
        """Draw a layout of a format."""
        packed, newline = rng.random() < 0.15, rng.choice(("\n", "\n", "\r\n"))
        if kind == "arff":
            return cls(kind, ",", label_asked=rng.choice((None, "tissue")), newline=newline)
        if kind in ("gct", "series matrix"):
            return cls(kind, packed=packed, newline=newline)
        delimiter = rng.choice((",", "\t", ";"))
        name = rng.choice(("tissue", "class", "label"))
        return cls(
            kind,
            delimiter,
            "," if delimiter != "," and rng.random() < 0.3 else ".",
            rng.choice(("none", "names", "numbers", "unnamed")),
            rng.choice(("last", "first", "middle")),
            name,
            rng.choice((None, name)),
            rng.random() < 0.3,
            newline,
            rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")),
            packed,
            rng.choice(("\n", "", "\n\n", "\n\n\n")),
        )


def write_text(table: Table, layout: Layout) -> str:
    """Return the text of a file."""
    writers: dict[str, Callable[[Table, Layout], list[list[str]]]] = {
        "arff": _arff,
        "delimited": _delimited,
        "gct": _gct,
        "genes in rows": _genes_in_rows,
        "series matrix": _series_matrix,
    }
    lines = [layout.delimiter.join(cells) for cells in writers[layout.format](table, layout)]
    return layout.newline.join(lines) + layout.end.replace("\n", layout.newline)


def _number(value: float, layout: Layout) -> str:
    text = f"{value:.4f}".replace(".", layout.decimal)
    return f'"{text}"' if layout.quoted else text


def _name(text: str, layout: Layout) -> str:
    return f'"{text}"' if layout.quoted else text


def _delimited(table: Table, layout: Layout) -> list[list[str]]:
    head = [_name(gene, layout) for gene in table.genes]
    rows = [[_number(value, layout) for value in row] for row in table.values]
    place = {"last": len(head), "first": 0, "middle": len(head) // 2}[layout.label_place]
    head.insert(place, _name(layout.label_name, layout))
    for row, label in zip(rows, table.labels, strict=True):
        row.insert(place, _name(label, layout))
    if layout.index != "none":
        head.insert(0, "" if layout.index == "unnamed" else _name("id", layout))
        for number, row in enumerate(rows):
            numbers = layout.index == "numbers"
            row.insert(0, str(number + 1) if numbers else _name(table.samples[number], layout))
    return [head, *rows]


def _genes_in_rows(table: Table, layout: Layout) -> list[list[str]]:
    labels = [layout.label_name, *table.labels]
    rows = [
        [gene, *(_number(value, layout) for value in table.values[:, number])]
        for number, gene in enumerate(table.genes)
    ]
    return [["gene", *table.samples], labels, *rows]


def _gct(table: Table, layout: Layout) -> list[list[str]]:
    rows = [
        [gene, "about", *(_number(value, layout) for value in table.values[:, number])]
        for number, gene in enumerate(table.genes)
    ]
    sizes = [str(len(table.genes)), str(len(table.samples)), "1", "1"]
    facts = ["tissue", "na", *table.labels]
    return [["#1.3"], sizes, ["id", "Description", *table.samples], facts, *rows]


def _series_matrix(table: Table, layout: Layout) -> list[list[str]]:
    rows = [
        [f'"{gene}"', *(f"{value:.4f}" for value in table.values[:, number])]
        for number, gene in enumerate(table.genes)
    ]
    return [
        ["!Series_title", '"made up"'],
        ["!Sample_title", *(f'"{name}"' for name in table.samples)],
        ["!Sample_characteristics_ch1", *(f'"tissue: {label}"' for label in table.labels)],
        ["!series_matrix_table_begin"],
        ['"ID_REF"', *(f'"GSM{number}"' for number in range(len(table.samples)))],
        *rows,
        ["!series_matrix_table_end"],
    ]


def _arff(table: Table, layout: Layout) -> list[list[str]]:
    classes = ",".join(sorted(set(table.labels)))
    head = [[f"@attribute {gene} numeric"] for gene in table.genes]
    rows = [
        [*(f"{value:.4f}" for value in row), label]
        for row, label in zip(table.values, table.labels, strict=True)
    ]
    return [
        ["@relation made_up"],
        *head,
        [f"@attribute tissue {{{classes}}}"],
        ["@data"],
        *rows,
    ]


# Binary files


def write_binary(table: Table, name: str, folder: Path, rng: random.Random) -> Path:
    """Write a binary file; returns its path."""
    x = table.values.astype(np.float32)
    y = np.array(table.labels, dtype=object)
    if name == "npz":
        path = folder / "table.npz"
        save = np.savez_compressed if rng.random() < 0.5 else np.savez
        save(path, X=x, Y=np.array(table.labels))
    elif name == "mat":
        path = folder / "table.mat"
        content: dict[str, Any] = {"X": sparse.csc_matrix(x) if rng.random() < 0.3 else x, "Y": y}
        io.savemat(path, content, do_compression=rng.random() < 0.5)
    elif name == "mat 7.3":
        path = folder / "table.mat"
        numbers = np.array(table.with_numbers_for_labels().labels, dtype=np.float64)
        with h5py.File(path, "w", userblock_size=512) as file:
            file["X"] = table.values.T
            file["Y"] = numbers[None, :]
            for key in ("X", "Y"):
                file[key].attrs["MATLAB_class"] = np.bytes_("double")
        with path.open("r+b") as opened:
            opened.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    elif name == "parquet":
        path = folder / "table.parquet"
        pd.DataFrame(x, columns=table.genes).assign(tissue=table.labels).to_parquet(path)
    else:
        path = folder / "table.h5ad"
        _write_h5ad(table, path, rng.random() < 0.5)
    return path


def _write_h5ad(table: Table, path: Path, packed: bool) -> None:
    texts = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        if packed:
            matrix = sparse.csr_matrix(table.values.astype(np.float32))
            group = file.create_group("X")
            group.attrs["encoding-type"] = "csr_matrix"
            group.attrs["shape"] = matrix.shape
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(matrix, part)
        else:
            file["X"] = table.values.astype(np.float32)
        for group_name, names in (("obs", table.samples), ("var", table.genes)):
            group = file.create_group(group_name)
            group.attrs["_index"] = "_index"
            group["_index"] = np.array(names, dtype=texts)
        file["obs"]["tissue"] = np.array(table.labels, dtype=texts)
