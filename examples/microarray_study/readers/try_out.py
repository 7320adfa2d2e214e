"""Reads an HDF5 file in a process of its own first: a damaged one can crash the library, or hang it.

    python -m microarray_study.readers.try_out FILE    # ends, if the library comes back
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from microarray_study.errors import InputError

SECONDS = 60.0  # for a small file; each megabyte has one more


def try_out(path: Path) -> None:
    """Return if a process that read the file has ended by itself, with or without an error.

    Costs the start of Python and one more reading of the file, whose memory is free again.

    Raises:
        InputError: the process died of a signal, or took far longer than a whole file takes.
    """
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    limit = SECONDS + path.stat().st_size / 1e6
    try:
        done = subprocess.run(
            command(path),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{path}: is damaged: the HDF5 library has not come back from it after {limit:.0f} s"
        ) from error
    if done.returncode < 0:
        raise InputError(
            f"{path}: is damaged: the HDF5 library crashes on it (signal {-done.returncode})"
        )


def command(path: Path) -> list[str]:
    """Return the command of the process that reads a file."""
    return [sys.executable, "-m", __name__, str(path)]


def _read(path: Path) -> None:
    """Read all that the reader of the ending reads."""
    from microarray_study.readers.h5ad import h5ad_table
    from microarray_study.readers.matlab_hdf5 import mat_arrays
    from microarray_study.readers.reading import Reading

    # What is wrong with the file is said where it is read the second time.
    with contextlib.suppress(Exception):
        if path.suffix.lower() == ".h5ad":
            h5ad_table(path, Reading(), None)
        else:
            mat_arrays(path)


if __name__ == "__main__":
    _read(Path(sys.argv[1]))
