"""Reads h5ad files of AnnData: cells or samples in rows, facts about them in `obs`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from microarray_study.data_set import Features
from microarray_study.errors import InputError
from microarray_study.readers.raw_table import RawTable
from microarray_study.readers.reading import Reading
from microarray_study.readers.sample_facts import choose_fact
from microarray_study.readers.try_out import try_out


def read_h5ad(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read the table `X` and a column of `obs` as labels.

    `--label` names the column; without it, the only one that can be the label is taken.

    Raises:
        InputError: the file has no `X`, or it is not clear which column is meant.
    """
    if reading.transpose:
        raise InputError(f"{path}: --transpose does not fit h5ad, whose rows are samples")
    try_out(path)
    return h5ad_table(path, reading, known)


def h5ad_table(path: Path, reading: Reading, known: Collection[str] | None) -> RawTable:
    """Read a file that is known to end neither this process nor its patience."""
    try:
        with h5py.File(path, "r") as file:
            if "X" not in file or "obs" not in file or "var" not in file:
                raise InputError(
                    f"{path}: needs X, obs and var, as AnnData writes them, got "
                    f"{', '.join(file) or 'nothing'}"
                )
            values = _matrix(path, file["X"])
            table = RawTable(
                values,
                feature_names=_index(file["var"]),
                sample_names=_index(file["obs"]),
            )
            if known is None:
                facts = _facts(file["obs"])
                name = choose_fact(path, facts, reading.label, "--label")
                table.labels = facts[name]
                table.notes.append(f"labels: {name!r} of obs")
    except InputError:
        raise
    except Exception as error:  # h5py has no common type for what it finds wrong
        raise InputError(f"{path}: is no readable h5ad (HDF5) file: {error}") from error
    return table


def _matrix(path: Path, item: Any) -> Features:
    if isinstance(item, h5py.Dataset):
        return np.asarray(item[()]).astype(np.float32)
    kind = str(item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", "")))
    forms = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}
    form = next((form for name, form in forms.items() if kind.startswith(name)), None)
    if form is None:
        raise InputError(f"{path}: X must be dense or sparse (csr, csc), got {kind or 'neither'!r}")
    shape = tuple(int(n) for n in item.attrs.get("shape", item.attrs.get("h5sparse_shape", ())))
    numbers = item["data"][()].astype(np.float32)
    try:
        matrix = form((numbers, item["indices"][()], item["indptr"][()]), shape)
        matrix.check_format(full_check=True)  # SciPy's own loops trust the indices
    except ValueError as error:
        raise InputError(f"{path}: X is no well-formed sparse matrix: {error}") from error
    dense: Features = matrix.toarray()
    return dense


def _index(group: Any) -> list[str]:
    return _texts(group[group.attrs.get("_index", "_index")])


def _facts(obs: Any) -> dict[str, list[str]]:
    """Return the columns of `obs` that hold numbers or texts, as texts."""
    index = obs.attrs.get("_index", "_index")
    names = [str(name) for name in obs.attrs.get("column-order", list(obs))]
    facts = {}
    for name in names:
        if name in (index, "__categories") or name not in obs:
            continue
        texts = _column(obs, name)
        if texts is not None:
            facts[name] = texts
    return facts


def _column(obs: Any, name: str) -> list[str] | None:
    item = obs[name]
    if isinstance(item, h5py.Group):
        if "categories" in item:
            return _categories(item["codes"][()], _texts(item["categories"]))
        if "values" in item:  # a column that may hold missing values
            texts, mask = _texts(item["values"]), item["mask"][()]
            return ["" if missing else text for text, missing in zip(texts, mask, strict=True)]
        return None
    categories = item.attrs.get("categories")
    if categories is not None:  # as AnnData wrote categories before version 0.7
        return _categories(item[()], _texts(obs[categories]))
    return _texts(item) if item.ndim == 1 else None


def _categories(codes: Any, categories: list[str]) -> list[str]:
    return [categories[code] if code >= 0 else "" for code in codes]


def _texts(item: Any) -> list[str]:
    values = item["values"][()] if isinstance(item, h5py.Group) else item[()]
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
