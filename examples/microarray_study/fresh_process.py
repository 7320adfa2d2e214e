"""Each run in a process of its own: no run sees the memory, or the warm caches, of another."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO, Any

from microarray_study.errors import RunError
from microarray_study.results import Run
from microarray_study.worker import Job

START = "from microarray_study import worker; worker.main()"
# The library pools read these once, when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def run_in_fresh_process(job: Job, on_epoch: Callable[[dict[str, float]], None]) -> Run:
    """Do a job in a new Python process; `on_epoch` gets its loss and accuracy as they come.

    The process is in a session of its own, so Ctrl-C reaches only the caller, who ends it.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; {START}"
    threads = str(job.settings.threads)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # on Windows
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, threads),
        )
        try:
            result = _talk(process, job, on_epoch)
            status = process.wait()
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        if result is None:
            raise RunError(_reason(status, errors))
    return result


def _talk(
    process: subprocess.Popen[bytes], job: Job, on_epoch: Callable[[dict[str, float]], None]
) -> Run | None:
    """Send the job; follow the lines that come back. None if the process ended without a result."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(job, process.stdin)
        process.stdin.close()
    except BrokenPipeError:  # it ended early; its error says why
        return None
    for line in process.stdout:
        message: dict[str, Any] = json.loads(line)
        if "epoch" in message:
            on_epoch(message["epoch"])
        elif "error" in message:
            raise RunError(message["error"])
        else:
            return Run(**message["run"])
    return None


def _reason(status: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        return f"its process was killed by signal {-status}; is there enough memory?"
    return f"its process ended with status {status}: {lines[-1] if lines else 'no message'}"
