"""Does each run in a process of its own: no run sees the memory or the caches of another."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Any, TypeVar

from microarray_study.errors import RunError

START = "from microarray_study import fresh_process; fresh_process.serve()"
# The library pools read these once, when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Outcome = TypeVar("Outcome")


def run_in_fresh_process(
    work: Callable[..., Outcome],
    *arguments: Any,
    on_report: Callable[[Any], None],
    threads: int,
) -> Outcome:
    """Return what `work(*arguments, report)` returns when a new Python process calls it.

    `work` is a function of a module; its arguments and its outcome are pickled. Whatever `work`
    passes to `report` is passed to `on_report` here. A `RunError` of `work` is raised here, too;
    another one is raised if the process ends without an outcome.

    The process never outlives this call. It ignores Ctrl-C, and this call ends it; if the calling
    process is killed, the standard input of the new process ends, and so does the new process.
    """
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"sys.path[:] = {sys.path!r}; {START}"
    )
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)),
        )
        try:
            result = _talk(process, (work, arguments), on_report)
            status = process.wait()
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
        if result is None:
            raise RunError(_reason(status, errors))
        outcome: Outcome = result[0]
        return outcome


def _talk(
    process: subprocess.Popen[bytes], job: Any, on_report: Callable[[Any], None]
) -> tuple[Any] | None:
    """Send the job, follow the reports; return the outcome, or None if the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(job, process.stdin)
        process.stdin.flush()  # not closed: the process ends when its input does
    except BrokenPipeError:  # it ended early; its error says why
        return None
    while message := _received(process.stdout):
        kind, content = message
        if kind == "report":
            on_report(content)
        elif kind == "error":
            raise RunError(content)
        else:
            return (content,)
    return None


def _received(answers: IO[bytes]) -> tuple[str, Any] | None:
    try:
        message: tuple[str, Any] = pickle.load(answers)
    except (EOFError, pickle.UnpicklingError):  # nothing, or the part that it could still write
        return None
    return message


def _reason(status: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        return f"its process was killed by signal {-status}; is there enough memory?"
    return f"its process ended with status {status}: {lines[-1] if lines else 'no message'}"


def serve() -> None:
    """Do the job that comes through standard input: the main function of the new process."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints goes where the errors go

    def send(kind: str, content: Any) -> None:
        pickle.dump((kind, content), answers)
        answers.flush()

    work, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    try:
        outcome = work(*arguments, lambda content: send("report", content))
    except RunError as error:
        send("error", str(error))
    else:
        send("outcome", outcome)


def _end_with_the_caller() -> None:
    """Wait for the end of standard input, which the caller alone holds open; then end."""
    os.read(0, 1)
    os._exit(1)
