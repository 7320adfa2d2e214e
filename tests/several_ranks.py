"""Run a function on several ranks at once, on this machine, over gloo."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from oracles import TESTS
from processes import run_python

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available() and hasattr(os, "fork")),
    reason="needs torch.distributed with gloo, and fork",
)

LAUNCH = """
import sys
sys.path.insert(0, {tests!r})
import several_ranks
from {module} import {name}
several_ranks.launch({name}, {size}, {folder!r})
"""


def on_ranks(scenario: Callable[[int, int, Path], Any], size: int, folder: Path) -> list[Any]:
    """Run `scenario(rank, size, folder)` on each rank, and collect what they return.

    In a process of its own, which imports everything once and then forks: a fork of the tests'
    process would inherit whatever threads it has.
    """
    module, name = Path(sys.modules[scenario.__module__].__file__ or "").stem, scenario.__name__
    script = LAUNCH.format(
        tests=str(TESTS), module=module, name=name, size=size, folder=str(folder)
    )
    done = run_python("-c", script, cwd=folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True) for rank in range(size)]


def launch(scenario: Callable[[int, int, Path], Any], size: int, folder: str) -> None:
    import torch._dynamo  # every optimizer imports it: better once than on each rank

    torch.set_num_threads(1)
    loopback = {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback.pop()
    torch.multiprocessing.start_processes(
        _on_rank, (scenario, size, Path(folder)), nprocs=size, start_method="fork"
    )


def _on_rank(rank: int, scenario: Callable[[int, int, Path], Any], size: int, folder: Path) -> None:
    meeting = f"file://{folder / 'meeting'}"
    # A rank that fails ends the others; on a busy machine they may have to wait for each other.
    patient = timedelta(days=1)
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=size, timeout=patient
    )
    torch.manual_seed(100 + rank)
    torch.save(scenario(rank, size, folder), folder / f"rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
