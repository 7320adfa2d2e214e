"""How much memory a fit adds at its peak, each in a fresh process.

    python -m benchmarks.accuracy.memory --data FOLDER

Before it counts, a process has fitted the same method on a few features: what libraries load on
first use is not counted. Networks are trained for 8 epochs. The high-water mark is the kernel's
(Linux).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.markdown import table

from .data_sets import load, splits
from .methods import ESTIMATORS, METHODS

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from microarray_study.measuring import PeakMemory

EPOCHS = 8  # the first evolution is after 5, and the later ones take the same memory
SETS = ("colon", "TOX-171", "christensen", "chowdary")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.memory")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=Path("results/accuracy/memory.md"))
    parser.add_argument("--one", nargs=2, metavar=("SET", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        print(added_by(options.data, *options.one))
        return 0
    names = [name for name, method in METHODS.items() if method.only is None]
    sizes = [load(options.data, name).features.shape for name in SETS]
    rows = []
    for name in names:
        cells = [f"{_in_fresh_process(options.data, data, name) / 1e6:,.0f}" for data in SETS]
        rows.append([name, *cells])
        print(" ".join(rows[-1]), flush=True)
    head = ["method", *(f"{s} {n} x {m}" for s, (n, m) in zip(SETS, sizes, strict=True))]
    text = (
        "# Memory of a fit\n\nMegabytes that a fit on a training part adds at its peak, one "
        "thread, in a fresh process. Made by\n\n```sh\npython -m benchmarks.accuracy.memory "
        f"--data FOLDER\n```\n\n{table(head, rows)}\n"
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")
    print(f"wrote {options.output}")
    return 0


def added_by(folder: Path, name: str, method_name: str) -> int:
    """Return the bytes that a fit adds to this process."""
    torch.set_num_threads(1)
    data, method = load(folder, name), METHODS[method_name]
    train = next(splits(data, 1)).train
    features, labels = data.features[train], data.labels[train]
    settings = dict(method.settings)
    if method.fit in ESTIMATORS:
        settings["max_epochs"] = EPOCHS
    if "epochs" in settings:
        settings["epochs"] = EPOCHS
    method.fit(features[:, :64].copy(), labels, 0, **settings)
    with PeakMemory() as memory:
        method.fit(features, labels, 0, **settings)
    if memory.added_bytes is None:
        raise RuntimeError("this system does not say how much memory a process has taken")
    return memory.added_bytes


def _in_fresh_process(folder: Path, data: str, method: str) -> int:
    command = [sys.executable, "-m", "benchmarks.accuracy.memory", "--data", str(folder)]
    done = subprocess.run(
        [*command, "--one", data, method], check=True, stdout=subprocess.PIPE, text=True
    )
    return int(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
