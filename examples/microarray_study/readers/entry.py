"""Reads the data set in a file, or new samples for a network that was trained on one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from microarray_study.data_set import (
    DataSet,
    Features,
    check_features,
    make_data_set,
    numbered_names,
)
from microarray_study.errors import InputError
from microarray_study.readers.missing import settle_missing
from microarray_study.readers.raw_table import RawTable, some
from microarray_study.readers.reading import Reading

Reader = Callable[[Path, Reading, Collection[str] | None], RawTable]

TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".tab")
ENDINGS = (*TEXT_ENDINGS, ".gct", ".arff", ".mat", ".npz", ".parquet", ".pq", ".h5ad")
# What people have and must save again: the way to do it.
SAVE_AGAIN = {
    ".xls": "save the sheet as CSV (UTF-8)",
    ".xlsx": "save the sheet as CSV (UTF-8)",
    ".ods": "save the sheet as CSV (UTF-8)",
    ".rds": "write it in R with write.csv",
    ".rda": "write it in R with write.csv",
    ".rdata": "write it in R with write.csv",
    ".npy": "save features and labels together with numpy.savez",
    ".pkl": "save features and labels with numpy.savez; a pickle can run any code",
    ".pickle": "save features and labels with numpy.savez; a pickle can run any code",
    ".zip": "unpack it",
    ".bz2": "unpack it, or pack it with gzip",
    ".xz": "unpack it, or pack it with gzip",
    ".cel": "normalise the arrays first, for example with the affy package of R",
}


@dataclass(frozen=True)
class Samples:
    """New samples: features in the order of the training features, and what was decided."""

    features: Features
    sample_names: tuple[str, ...]
    notes: tuple[str, ...]


def read(path: Path, reading: Reading | None = None) -> DataSet:
    """Read the data set in a file; the file gives it its name.

    The ending says how to read it: `.csv`, `.tsv`, `.txt`, `.tab`, `.gct` or `.arff`, each also
    packed (`.gz`), `.mat`, `.npz`, `.parquet` or `.h5ad`. A GEO series matrix is known by its
    first line. A text of 42 MB takes a few seconds and a few times the memory of its array.

    Raises:
        InputError: the file cannot be read, or what it holds is no data set; the text says what is
            lacking and which option helps.
    """
    reading = reading or Reading()
    table = _table(path, reading, None)
    settle_missing(table, reading, path.name)
    return make_data_set(
        stem_of(path),
        path.name,
        table.values,
        table.labels,
        table.feature_names,
        table.sample_names,
        table.notes,
    )


def read_samples(
    path: Path,
    reading: Reading,
    feature_names: Sequence[str],
    medians: Features | None = None,
) -> Samples:
    """Read new samples and put their columns into the order of the training features.

    Labels in the file are left out, and so are features that the training table did not have.

    Args:
        path: a file of any format that `read` takes.
        reading: the options that the training table was read with.
        feature_names: `DataSet.feature_names` of the training table.
        medians: what stands for missing values, one number a feature, if `reading.missing` is
            `median`. The medians of the training table belong here: those of the new samples would
            depend on which samples come together.

    Raises:
        InputError: the file lacks features, or values are missing and may not be filled in.
    """
    table = _table(path, reading, frozenset(feature_names))
    found, notes = numbered_names(table.feature_names, "feature", table.values.shape[1])
    place = {name: i for i, name in enumerate(found)}
    lacking = [name for name in feature_names if name not in place]
    if lacking:
        hint = "" if table.feature_names else "; the file gives no names to its features"
        raise InputError(
            f"{path.name}: {len(lacking):,} of {len(feature_names):,} features of the training "
            f"table are lacking: {some(lacking)}{hint}"
        )
    if len(found) > len(feature_names):
        more = [name for name in found if name not in set(feature_names)]
        if table.feature_names is None:
            raise InputError(
                f"{path.name}: has {len(found):,} columns without names, but the training table "
                f"has {len(feature_names):,} features; leave out what is no feature"
            )
        notes = (*notes, f"not in the training table and left out: {some(more)}")
    values = table.values[:, [place[name] for name in feature_names]]
    absent = np.isnan(values)
    if absent.any() and reading.missing == "median" and medians is not None:
        values = np.where(absent, medians, values)
        notes = (*notes, f"{absent.sum():,} missing values: the medians given stand for them")
    elif absent.any():
        row, column = map(int, np.argwhere(absent)[0])
        raise InputError(
            f"{path.name}: {absent.sum():,} values are missing, the first in sample {row + 1}, "
            f"feature {feature_names[column]!r}; new samples need every feature, unless the "
            "medians of the training table may stand for it (--missing median)"
        )
    names = table.sample_names or [f"sample {i + 1}" for i in range(len(values))]
    return Samples(check_features(values, path.name), tuple(names), (*table.notes, *notes))


def stem_of(path: Path) -> str:
    """Return the name of a file without its endings.

    >>> stem_of(Path("colon.csv.gz")), stem_of(Path("GSE1.v2_series_matrix.txt"))
    ('colon', 'GSE1.v2_series_matrix')
    """
    return Path(path.stem).stem if path.suffix.lower() == ".gz" else path.stem


def _ending(path: Path) -> str:
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() if last == ".gz" else last


def _table(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    ending = _ending(path)
    if ending not in ENDINGS:
        remedy = f"; {SAVE_AGAIN[ending]}" if ending in SAVE_AGAIN else ""
        raise InputError(
            f"{path}: expected a file that ends in {', '.join(ENDINGS)} (text also in .gz), got "
            f"{ending or 'no ending'!r}{remedy}"
        )
    if not path.is_file():
        raise InputError(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}")
    try:
        return _reader(path, ending)(path, reading, known)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"{path}: its table does not fit into memory: {error}") from error


def _reader(path: Path, ending: str) -> Reader:
    """Return the reader of an ending; the package that it needs may be lacking."""
    try:
        return _imported_reader(path, ending)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{path}: reading {ending} files needs the package {error.name}; install it with: "
            f"pip install {error.name}"
        ) from error


def _imported_reader(path: Path, ending: str) -> Reader:
    # Imported here: what a file does not need is neither loaded nor asked for.
    if ending in TEXT_ENDINGS:
        from microarray_study.readers import gct, series_matrix, text

        if series_matrix.is_series_matrix(path):
            return series_matrix.read_series_matrix
        return gct.read_gct if gct.is_gct(path) else text.read_text
    if ending == ".gct":
        from microarray_study.readers.gct import read_gct

        return read_gct
    if ending == ".arff":
        from microarray_study.readers.arff import read_arff

        return read_arff
    if ending == ".mat":
        from microarray_study.readers.matlab import read_mat

        return read_mat
    if ending == ".npz":
        from microarray_study.readers.npz import read_npz

        return read_npz
    if ending == ".h5ad":
        from microarray_study.readers.h5ad import read_h5ad

        return read_h5ad
    from microarray_study.readers.parquet import read_parquet

    return read_parquet
