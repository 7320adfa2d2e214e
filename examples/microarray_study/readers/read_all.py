"""Reads all of a binary file, for a process that may crash or hang over it: see `try_out`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from microarray_study.readers.h5ad import h5ad_table
from microarray_study.readers.matlab import loaded
from microarray_study.readers.matlab_hdf5 import mat_arrays
from microarray_study.readers.reading import Reading


def read_all(path: Path) -> None:
    """Read all that the reader of the ending reads; errors are said where it is read again."""
    with contextlib.suppress(Exception):
        if path.suffix.lower() == ".h5ad":
            h5ad_table(path, Reading(), None)
            return
        try:
            loaded(path)
        except NotImplementedError:
            mat_arrays(path)


if __name__ == "__main__":
    read_all(Path(sys.argv[1]))
