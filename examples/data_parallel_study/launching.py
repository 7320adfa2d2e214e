"""Starts the ranks, processes on this machine, with torchrun or without."""

from __future__ import annotations

import os
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous
from torch.multiprocessing.spawn import ProcessException, start_processes

from data_parallel_study.training import Job, run


def under_torchrun() -> bool:
    """Return whether this process is one of several ranks already."""
    return dist.is_torchelastic_launched()


def run_as_rank(job: Job) -> None:
    """Join the ranks that torchrun has started; after a restart no rank is killed again."""
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt != "0":
        job = replace(job, kill_after=None)
    store, rank, ranks = next(rendezvous("env://"))
    # torchrun may keep the store over a restart, and in it the addresses of ranks that are gone.
    store = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=ranks)
    run(job)
    dist.barrier()  # nobody leaves while another still talks to it
    dist.destroy_process_group()


def start_ranks(job: Job, ranks: int, threads: int) -> None:
    """Start the ranks and wait for them; where one was to be killed, start again up to 3 times."""
    restarts = 0 if job.kill_after is None else 3
    while True:
        try:
            return _start(job, ranks, threads)
        except ProcessException as error:
            if restarts == 0:
                raise
            restarts -= 1
            reason = str(error).strip().splitlines()[0]
            print(f"a rank is gone ({reason}); starting again", flush=True)
            job = replace(job, kill_after=None)


def _start(job: Job, ranks: int, threads: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        # Daemons: whatever ends this process, Ctrl-C say, ends them.
        start_processes(_on_rank, (job, ranks, threads, meeting), nprocs=ranks, daemon=True)


def _on_rank(rank: int, job: Job, ranks: int, threads: int, meeting: str) -> None:
    torch.set_num_threads(threads)
    loopback = {"lo", "lo0"} & {name for _, name in socket.if_nameindex()}
    if loopback:  # no need of a name and a network for ranks of one machine
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback.pop())
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    run(job)
    dist.barrier()  # nobody leaves while another still talks to it
    dist.destroy_process_group()
