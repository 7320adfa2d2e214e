"""Reads MATLAB files of version 7.3, which are HDF5 files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

from microarray_study.errors import InputError


def mat_arrays(path: Path) -> dict[str, Any]:
    """Return the variables of a file as NumPy arrays, cells as objects, sparse matrices as such.

    MATLAB stores columns first, so HDF5 sees every array transposed; here they are turned back.
    """
    try:
        with h5py.File(path, "r") as file:
            return {name: _value(file, item) for name, item in file.items() if name[0] != "#"}
    except Exception as error:  # h5py has no common type for what it finds wrong
        raise InputError(f"{path}: is no readable MATLAB 7.3 (HDF5) file: {error}") from error


def _value(file: h5py.File, item: Any) -> Any:
    if isinstance(item, h5py.Group):
        if "MATLAB_sparse" in item.attrs:
            return _sparse(item)
        fields = {name: _value(file, field) for name, field in item.items()}
        struct = np.empty((1, 1), dtype=[(name, object) for name in fields])
        for name, value in fields.items():
            struct[name][0, 0] = value
        return struct
    kind = item.attrs.get("MATLAB_class", b"")
    if item.attrs.get("MATLAB_empty", 0):
        return np.empty((0, 0))
    if kind == b"char":
        return _texts(item[()])
    if h5py.check_ref_dtype(item.dtype) is not None:
        references = item[()].T
        cells = np.empty(references.shape, dtype=object)
        for place in np.ndindex(references.shape):
            cells[place] = _value(file, file[references[place]])
        return cells
    array = np.asarray(item[()]).T
    return array.astype(bool) if kind == b"logical" else array


def _texts(codes: Any) -> Any:
    """Return a char matrix as one text a row."""
    rows = np.atleast_2d(np.asarray(codes).T)
    return np.array(["".join(map(chr, row)).rstrip() for row in rows])


def _sparse(group: h5py.Group) -> Any:
    starts = group["jc"][()]
    rows = int(group.attrs["MATLAB_sparse"])
    if "data" not in group:
        return sparse.csc_matrix((rows, len(starts) - 1))
    return sparse.csc_matrix((group["data"][()], group["ir"][()], starts), (rows, len(starts) - 1))
