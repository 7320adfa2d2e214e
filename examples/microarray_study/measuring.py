"""Measures the memory that a run adds to its process, and describes the machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from types import TracebackType

STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most memory that was added, above what the process held on entering.

        with PeakMemory() as memory:
            work()
        memory.added_bytes

    On Linux the kernel's own high-water mark (VmHWM) is set back to the present size first, so a
    larger peak before, of an import say, does not hide the job's own. Elsewhere `ru_maxrss` is
    read, which cannot be set back: a job smaller than an earlier peak then counts too little, so
    use a fresh process. None where the system has neither.
    """

    added_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        _return_free_memory()
        _reset_high_water_mark()
        self._before = _status_bytes("VmRSS") if STATUS.exists() else _max_rss()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        peak = _status_bytes("VmHWM") if STATUS.exists() else _max_rss()
        if peak is not None and self._before is not None:
            self.added_bytes = max(peak - self._before, 0)


def _reset_high_water_mark() -> None:
    # Not Linux, or a container that forbids it: then the mark stands where it stood.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _return_free_memory() -> None:
    """Hand freed blocks back to the system, or the job would fill them without being counted."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(field: str) -> int | None:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _max_rss() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment() -> dict[str, str]:
    """Describe where figures were measured: processor, cores and the versions that matter."""
    packages = ("torch_truly_sparse", "torch", "numpy", "scikit-learn")
    return {
        "processor": _processor(),
        "cores": str(usable_cores()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
