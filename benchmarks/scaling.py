"""Times our layer as its weights, its batch and its width grow: the time must grow linearly."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch

from .command_line import Benchmark, main, tell
from .competitors import OURS, TrulySparse
from .contest import admit, forward, forward_backward
from .correctness import Oracle
from .growth import Sweep, curve, large_half, sweeps_in
from .markdown import absences, digits, header, milliseconds, table
from .problem import Problem
from .results import BOTH, FORWARD, OK, Results, Row
from .shapes import Shape
from .timing import Schedule, Task, measure

_CONNECTIONS = 32  # a unit, where the width grows


def _square(width: int, connections: int, batch: int) -> Shape:
    return Shape(width, width, batch, connections / width)


SWEEPS = [
    Sweep(
        "weights",
        "4096 x 4096, batch 64",
        [_square(4096, 2**power, 64) for power in range(3, 12)],
    ),
    Sweep(
        "batch",
        "4096 x 4096, 335,544 weights",
        [Shape(4096, 4096, 2**power, 0.02) for power in range(11)],
    ),
    Sweep(
        "width",
        f"n x n, {_CONNECTIONS} weights a unit, batch 16",
        [_square(2**power, _CONNECTIONS, 16) for power in range(10, 20)],
    ),
]
QUICK_SWEEPS = [
    Sweep("weights", "256 x 256, batch 16", [_square(256, n, 16) for n in (4, 16, 64)]),
    Sweep("batch", "256 x 256, 4,096 weights", [_square(256, 16, n) for n in (4, 16, 64)]),
    Sweep("width", "n x n, 8 weights a unit", [_square(n, 8, 16) for n in (128, 512, 2048)]),
]


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure all sweeps; the layers of one sweep are interleaved."""
    rows = []
    for sweep in QUICK_SWEEPS if options.quick else SWEEPS:
        tell(f"{sweep.name}: {sweep.title}")
        rows += time_sweep(sweep, schedule, options.seed)
    return rows


def time_sweep(sweep: Sweep, schedule: Schedule, seed: int) -> list[Row]:
    """Check and time every layer of one sweep; the rows name the sweep in their `detail`."""
    threads = torch.get_num_threads()
    rows: list[Row] = []
    tasks: dict[tuple[Shape, str], Task] = {}
    for shape in sweep.shapes:
        problem = Problem.draw(shape, seed=seed)
        status, reason, layer = admit(TrulySparse, problem, Oracle(problem))
        if layer is None:
            rows += [Row(shape, OURS, what, threads, status, reason) for what in (FORWARD, BOTH)]
        else:
            tasks[shape, FORWARD] = Task(forward(layer, problem))
            tasks[shape, BOTH] = Task(forward_backward(layer, problem))
    for (shape, what), timing in measure(tasks, schedule, seed=seed).items():
        rows.append(Row(shape, OURS, what, threads, OK, sweep.label, timing))
    return rows


def report(results: Results) -> str:
    """Make Markdown: a table for each sweep."""
    parts = ["# Growth of cost\n\n" + header(results)]
    for sweep in sweeps_in(results):
        head = [sweep.name, "forward, ms", "forward+backward, ms", "ns a weight and sample"]
        part = replace(results, rows=[row for row in results.rows if row.detail == sweep.label])
        rows = []
        for shape in sweep.shapes:
            found = [part.find(shape, OURS, what) for what in (FORWARD, BOTH)]
            times = [milliseconds(row.timing) if row is not None else "-" for row in found]
            seconds = part.seconds(shape, OURS, BOTH) or math.nan
            each = digits(seconds * 1e9 / shape.nnz / shape.batch)
            rows.append([f"{sweep.size(shape):,}", *times, each])
        powers = ", ".join(
            f"{large_half(*curve(results, sweep, what)):.2f} ({what})" for what in (FORWARD, BOTH)
        )
        parts += [
            f"## {sweep.name.capitalize()}: {sweep.title}",
            table(head, rows),
            f"In the larger half, time grows with the power {powers} of the {sweep.name}.",
        ]
    parts += absences(results.rows)
    return "\n\n".join(parts) + "\n"


def _draw(results: Results, path: Path) -> Path:
    from .plots import draw_scaling

    return draw_scaling(results, path)


BENCHMARK = Benchmark("scaling", str(__doc__), run, report, _draw)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
