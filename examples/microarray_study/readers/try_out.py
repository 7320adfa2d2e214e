"""Reads a MATLAB or HDF5 file in a process of its own first: a damaged one can crash the library.

`python -m microarray_study.readers.read_all FILE`, the command of that process, ends if the library
comes back.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from microarray_study.errors import InputError

READER = "microarray_study.readers.read_all"
SECONDS = 60.0  # for a small file; each megabyte has one more


def try_out(path: Path) -> None:
    """Return if a process that read the file has ended by itself, with or without an error.

    Costs the start of Python and one more reading of the file, whose memory is free again.

    Raises:
        InputError: the process died of a signal, or took far longer than a whole file takes.
    """
    limit = SECONDS + path.stat().st_size / 1e6
    status = status_of_reader(path, limit)
    if status is None:
        raise InputError(
            f"{path}: is damaged: the library that reads it has not come back after {limit:.0f} s"
        )
    if status < 0:
        raise InputError(
            f"{path}: is damaged: the library that reads it crashes (signal {-status})"
        )


def status_of_reader(path: Path, limit: float) -> int | None:
    """Read a file in a fresh process; return its exit status, None if it took too long."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [sys.executable, "-m", READER, str(path)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=limit,
            check=False,
        ).returncode
    return None
