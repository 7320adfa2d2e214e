"""Times our layer as the number of weights, the batch and the width grow: it must be linear."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .command_line import Benchmark, main, tell
from .competitors import OURS, TrulySparse
from .contest import admit, forward, forward_backward
from .correctness import Oracle
from .problem import Problem
from .report import absences, digits, header, milliseconds, table
from .results import BOTH, FORWARD, OK, Results, Row
from .shapes import Shape
from .timing import Schedule, Task, measure

_CONNECTIONS = 32  # a unit, where the width grows


@dataclass(frozen=True)
class Sweep:
    """Layers of which one thing grows and all else stays.

    Attributes:
        name: what grows.
        title: what stays.
        shapes: rising.
    """

    name: str
    title: str
    shapes: Sequence[Shape]

    @property
    def label(self) -> str:
        """By which its rows are known."""
        return f"{self.name}: {self.title}"

    def size(self, shape: Shape) -> int:
        """Give what grows of a shape."""
        return {"weights": shape.nnz, "batch": shape.batch, "width": shape.in_features}[self.name]


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


def sweeps_in(results: Results) -> list[Sweep]:
    """Find the sweeps that were measured."""
    found: dict[str, dict[Shape, None]] = {}
    for row in results.rows:
        if row.timing is not None:
            found.setdefault(row.detail, {})[row.shape] = None
    sweeps = []
    for label, shapes in found.items():
        name, title = label.split(": ", 1)
        sweeps.append(Sweep(name, title, list(shapes)))
    return sweeps


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Fit p of seconds ~ size ** p by least squares of the logarithms: 1 is linear.

    Raises:
        ValueError: there are fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError("`sizes` must be at least two")
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    x_mean, y_mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
    above = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return above / math.fsum((a - x_mean) ** 2 for a in x)


def large_half(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Fit the exponent to the larger half of the sizes, where a call's fixed cost is small."""
    middle = min(len(sizes) // 2, len(sizes) - 2)
    return exponent(sizes[middle:], seconds[middle:])


def curve(results: Results, sweep: Sweep, measure: str) -> tuple[list[int], list[float]]:
    """Give the sizes of a sweep and the seconds that each took, those that were timed."""
    points = [
        (sweep.size(row.shape), row.timing.median)
        for row in results.rows
        if row.detail == sweep.label and row.measure == measure and row.timing is not None
    ]
    return [size for size, _ in points], [seconds for _, seconds in points]


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
