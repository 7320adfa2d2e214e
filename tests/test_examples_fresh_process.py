"""A run of an example in a process of its own, which does not outlive its caller."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from microarray_study import fresh_process
from microarray_study.errors import RunError
from processes import started_python, wait_for_end

EXAMPLES = Path(fresh_process.__file__).parents[1]
WORK = """
import os
import threading
from microarray_study.errors import RunError

def square(number, report):
    for part in range(number):
        print("what is printed does not mix with the answers")
        report(part)
    return number**2, os.getpid()

def diverge(report):
    raise RunError("diverged in epoch 3")

def fail(report):
    raise LookupError("no such gene")

def stay(report):
    report(os.getpid())
    threading.Event().wait()
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    return pytest.importorskip("work")


def run(work: Any, *arguments: Any, on_report: Any = lambda _: None) -> Any:
    return fresh_process.run_in_fresh_process(work, *arguments, on_report=on_report, threads=1)


def test_it_gives_back_the_reports_and_the_outcome(work: Any) -> None:
    reports: list[int] = []
    outcome, process = run(work.square, 3, on_report=reports.append)
    assert reports == [0, 1, 2]
    assert outcome == 9
    assert process != os.getpid()


def test_what_goes_wrong_in_it_is_reported(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"^diverged in epoch 3$"):
        run(work.diverge)
    with pytest.raises(RunError, match=r"status 1: LookupError: no such gene"):
        run(work.fail)
    monkeypatch.setattr(fresh_process, "START", "raise SystemExit('no engine')  # ")
    with pytest.raises(RunError, match="status 1: no engine"):
        run(work.square, 3)
    monkeypatch.setattr(fresh_process, "START", "import os; os.kill(os.getpid(), 9)  # ")
    with pytest.raises(RunError, match="signal 9; is there enough memory"):
        run(work.square, 3)


def test_ctrl_c_in_the_caller_ends_it(work: Any) -> None:
    begun: list[int] = []

    def interrupt(process: int) -> None:
        begun.append(process)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(work.stay, on_report=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(begun[0], 0)


KILLED = """
import os, signal
import work
from microarray_study.fresh_process import run_in_fresh_process

def die(process):
    print(process, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

run_in_fresh_process(work.stay, on_report=die, threads=1)
"""
# Ctrl-C may come when the process has started and nobody has noted it yet.
INTERRUPTED = """
import subprocess, types
import work
from microarray_study import fresh_process

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print(self.pid, flush=True)
        raise KeyboardInterrupt

fresh_process.subprocess = types.SimpleNamespace(Popen=Popen, PIPE=subprocess.PIPE)
fresh_process.run_in_fresh_process(work.stay, on_report=print, threads=1)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a stranger's end: Linux")
@pytest.mark.parametrize("program", [KILLED, INTERRUPTED], ids=["killed", "interrupted"])
def test_it_ends_by_itself_when_its_caller_is_gone(program: str, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    program = f"import sys; sys.path[:0] = {[str(EXAMPLES), str(tmp_path)]!r}\n{program}"
    with started_python("-c", program, cwd=tmp_path) as caller:
        assert caller.stdout is not None
        process = int(caller.stdout.readline())
        assert caller.wait() != 0
        wait_for_end(process)
