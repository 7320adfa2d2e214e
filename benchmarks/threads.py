"""Times our layer and the dense one with 1 thread, 2, and so on, in the same rounds."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

from .command_line import Benchmark, add_shapes, main, one_by_one
from .competitors import Dense, TrulySparse
from .contest import admit, forward_backward
from .correctness import Oracle
from .markdown import absences, digits, header, milliseconds, table
from .problem import Problem
from .results import BOTH, OK, Results, Row
from .shapes import QUICK, STREAMING, Shape
from .timing import Schedule, Task, measure

SHAPES = [
    Shape(1024, 1024, 128, 0.1),
    Shape(1024, 1024, 128, 0.01),
    Shape(768, 3072, 2048, 0.1),
    Shape(3072, 4000, 128, 0.1),
    Shape(4096, 4096, 64, 0.01),
    Shape(3312, 3000, 2, 0.0128),
    Shape(20_000, 10_000, 32, 0.003),
    *STREAMING,
]


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure all shapes that were asked for, with 1, 2, 4, ... and `--threads` threads."""
    shapes = options.shapes or (QUICK if options.quick else SHAPES)
    counts = numbers_of_threads(options.threads)
    rows = []
    for shape in one_by_one(shapes):
        rows += time_shape(shape, counts, schedule, options.seed)
    torch.set_num_threads(options.threads)
    return rows


def numbers_of_threads(most: int) -> list[int]:
    """Return 1, 2, 4, ... below `most`, and `most`."""
    return [*(2**power for power in range((most - 1).bit_length())), most]


def time_shape(shape: Shape, counts: list[int], schedule: Schedule, seed: int) -> list[Row]:
    """Time forward + backward of both layers with each number of threads, interleaved."""
    problem = Problem.draw(shape, seed=seed)
    oracle = Oracle(problem)
    rows: list[Row] = []
    tasks: dict[tuple[str, int], Task] = {}
    for kind in (TrulySparse, Dense):
        status, reason, competitor = admit(kind, problem, oracle)
        for threads in counts:
            if competitor is None:
                rows.append(Row(shape, kind.name, BOTH, threads, status, reason))
            else:
                use = partial(torch.set_num_threads, threads)
                tasks[kind.name, threads] = Task(forward_backward(competitor, problem), use)
    for (subject, threads), timing in measure(tasks, schedule, seed=seed).items():
        rows.append(Row(shape, subject, BOTH, threads, OK, timing=timing))
    return rows


def report(results: Results) -> str:
    """Make Markdown."""
    counts = results.thread_counts
    head = ["in x out x batch @ density, ms", "layer"]
    head += [f"{threads} thread{'s' if threads > 1 else ''}" for threads in counts]
    head += [f"1 / {threads}" for threads in counts[1:]]
    rows = []
    for shape in results.shapes:
        for kind in (TrulySparse, Dense):
            found = [results.find(shape, kind.name, BOTH, threads) for threads in counts]
            if any(row is not None and row.timing is not None for row in found):
                times = [milliseconds(row.timing) if row is not None else "-" for row in found]
                gains = [results.speedup(shape, kind.name, threads) for threads in counts[1:]]
                shown = [digits(gain) if gain is not None else "-" for gain in gains]
                rows.append([str(shape), kind.name, *times, *shown])
    parts = ["# Threads, forward and backward\n\n" + header(results), table(head, rows)]
    parts += absences(results.rows)
    return "\n\n".join(parts) + "\n"


def _draw(results: Results, path: Path) -> Path:
    from .plots import draw_threads

    return draw_threads(results, path)


BENCHMARK = Benchmark(
    "threads",
    str(__doc__),
    run,
    report,
    _draw,
    partial(add_shapes, default="eight, from small to streaming"),
)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
