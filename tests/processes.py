"""Programs that tests start, none of which outlives its test."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch_truly_sparse


@contextlib.contextmanager
def started_python(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a fresh Python with this package in a process group of its own.

    The end of the block ends the whole group, that is, the program and what it has started itself.
    So does an interrupt of the tests, and there is no limit in seconds: how fast the machine is
    decides nothing.
    """
    here = str(Path(torch_truly_sparse.__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group has ended
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # does nothing to a process that has ended
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def run_python(
    *arguments: str, cwd: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a fresh Python to its end; it may crash without taking the tests along."""
    with started_python(*arguments, cwd=cwd, environment=environment) as process:
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def wait_for_end(pid: int) -> None:
    """Wait for the end of a process that somebody else has started (Linux)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([handle], [], [])
    finally:
        os.close(handle)
