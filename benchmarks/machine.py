"""The machine and its limits, which are measured in the same run as the layers."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

import torch_truly_sparse as tts

from .results import PROBE_WORK
from .timing import Schedule, Task, measure

_CACHE_PROBE_BYTES = 2**28  # read by one call of a cache's probe
_SYSTEM_CPU = Path("/sys/devices/system/cpu/cpu0/cache")


def available_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(threads: int) -> None:
    """Make torch, and libraries that are loaded later, use `threads` threads.

    A library with an OpenMP of its own reads `OMP_NUM_THREADS` when it is loaded, and never
    again: to compare it at several numbers of threads, start a process for each number.
    """
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def describe() -> dict[str, Any]:
    """Return the processor, its caches in bytes, cores, memory, system, and the present load."""
    return {
        "processor": _processor(),
        "instruction_set": tts.active_isa(),
        "cores": available_cores(),
        "caches": caches(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def caches() -> dict[str, int]:
    """Return the size in bytes of each data cache that a core sees, `L1` first; Linux only."""
    sizes = {}
    for folder in sorted(_SYSTEM_CPU.glob("index*")):
        if (folder / "type").read_text().strip() != "Instruction":
            text = (folder / "size").read_text().strip()
            unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1)
            sizes["L" + (folder / "level").read_text().strip()] = unit * int(text.rstrip("KMG"))
    return sizes


def probes() -> dict[str, Task]:
    """Make the probes that run in the same rounds as the layers: `sgemm` and `DRAM`."""
    return {"sgemm": sgemm(), "DRAM": dram_read()}


def sgemm() -> Task:
    """Make the probe of arithmetic: a dense float32 product of 1024 x 1024 by 1024 x 128."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 128)
    out = torch.empty(1024, 128)
    return Task(lambda: torch.mm(a, b, out=out))


def dram_read() -> Task:
    """Make the probe of memory: the sum of 256 MB, all cores reading.

    Summing reads as fast as anything in torch does, in vectors and by all threads. A cache that
    holds a good part of 256 MB makes it look too fast.
    """
    numbers = torch.ones(PROBE_WORK["DRAM"] // 4)
    return Task(numbers.sum)


def cache_read(size: int) -> Task:
    """Make the probe of a cache: every core sums the same `size` bytes again and again.

    An expanded tensor shows one row of memory as many; the sum of each row reads it anew.
    """
    numbers = torch.ones(size // 4)
    rows = numbers.expand(_CACHE_PROBE_BYTES // size, size // 4)
    return Task(lambda: rows.sum(1))


def ceilings(schedule: Schedule) -> dict[str, float]:
    """Measure the limits of the machine with torch's present number of threads.

    Returns:
        `sgemm` in GFLOP/s, and how fast `L1`, `L2`, `L3` (where the machine has them) and `DRAM`
        are read, in GB/s. The probe of a cache reads half as many bytes as the cache holds; that
        of the last cache, which other programs share, a quarter.
    """
    tasks = probes()
    sizes = caches()
    last = list(sizes)[-1:]
    for name, size in sizes.items():
        tasks[name] = cache_read(size // (4 if name in last else 2))
    timings = measure(tasks, schedule)
    return {
        name: PROBE_WORK.get(name, _CACHE_PROBE_BYTES) / timings[name].median / 1e9
        for name in ("sgemm", *sizes, "DRAM")
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']})" if "cpu family" in fields else name


def _memory() -> int | None:
    """Bytes of memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
