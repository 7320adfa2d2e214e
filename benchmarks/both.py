"""Runs benchmarks with AVX2 and with AVX-512: `python -m benchmarks.both [NAME ...]`.

With AVX2, torch's own kernels and its libraries (oneDNN, MKL) are held to AVX2, too, as on a
processor that has nothing wider. Each run is a process of its own and leaves
`results/NAME_ISA.json` and the Markdown that it printed, `results/NAME_ISA.md`. A benchmark is run
with one instruction set right after the other, so that the machine is in much the same state.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NAMES = ("layer", "products", "threads", "scaling", "small_layer", "small_network", "evolution")
# What each is run with beside the names of its files.
OPTIONS = {"layer": ["--plot"], "threads": ["--plot"], "small_network": ["--threads", "1"]}
AVX2 = {
    "TORCH_TRULY_SPARSE_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}
ENVIRONMENTS = {"avx2": AVX2, "avx512": {"TORCH_TRULY_SPARSE_ISA": "avx512"}}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; returns the number of runs that failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.both", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--isa", nargs="+", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    parser.add_argument("--folder", type=Path, default=Path("results"), help="for the files")
    parser.add_argument("--quick", action="store_true", help="only show that they run")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}; there are {', '.join(NAMES)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in options.names or NAMES:
        for isa in options.isa:
            failed += not run(name, isa, options.folder, quick=options.quick)
    return failed


def run(name: str, isa: str, folder: Path, *, quick: bool) -> bool:
    """Run one benchmark with one instruction set; returns whether it succeeded."""
    stem = folder / f"{name}_{isa}"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--output", f"{stem}.json"]
    for option in OPTIONS.get(name, ()):
        if option != "--plot":
            command.append(option)
        elif not quick:
            command += [option, f"{stem}.png"]
    if quick:
        command.append("--quick")
    print(f"{name} with {isa}", flush=True)
    with Path(f"{stem}.md").open("w", encoding="utf-8") as markdown:
        done = subprocess.run(
            command, env={**os.environ, **ENVIRONMENTS[isa]}, stdout=markdown, check=False
        )
    if done.returncode:
        print(f"{name} with {isa} failed: status {done.returncode}", file=sys.stderr, flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
