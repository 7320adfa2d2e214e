"""Cases that might crash, run where a crash is an outcome like any other.

A file of such tests is a program, too: a fresh Python runs it, and forks a child for each case.
"""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from processes import run_python

from torch_truly_sparse import MaskedLinear, SparseEvolution, TrulySparseLinear


def outcomes_of(program: str) -> dict[str, str]:
    """Run a file as a program in a fresh Python: its cases, and how each of them ended."""
    child = run_python(program, cwd=Path(__file__).parent)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def print_outcomes(cases: dict[str, Callable[[], object]]) -> None:
    """Run each case in a child; what such a program does."""
    # Gigabytes asked for because of a wild index are a failure, not a reason to swap. Under
    # AddressSanitizer (`make sanitize`), which reserves terabytes of addresses, it sees to that.
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, hard))
    # What torch imports on first use, the children then have.
    layer = TrulySparseLinear(5, 4, nnz=3)
    SparseEvolution(layer, torch.optim.SGD(layer.parameters(), lr=0.1)).step()
    MaskedLinear.from_sparse(layer)
    print(json.dumps({name: _outcome(case) for name, case in cases.items()}))


def _outcome(case: Callable[[], object]) -> str:
    """Run it in a child: "done", the error, or the signal that killed it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            case()
            text = "done"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return text
