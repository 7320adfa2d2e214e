"""Times one hidden layer, forward and backward through autograd, against every competitor."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from . import machine
from .command_line import Benchmark, add_shapes, main, one_by_one
from .competitors import COMPETITORS, Competitor
from .contest import admit, forward, forward_backward
from .correctness import Oracle
from .layer_report import report
from .problem import Problem
from .results import BOTH, FORWARD, MACHINE, OK, Results, Row
from .shapes import BREAK_EVEN, DENSE, PEERS, QUICK, Shape
from .timing import Schedule, Task, measure


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure all shapes that were asked for."""
    shapes = options.shapes
    if shapes is None:
        shapes = QUICK if options.quick else [*PEERS, *DENSE]
        if options.plot is not None and not options.quick:
            shapes = [*shapes, *BREAK_EVEN]
        shapes = list(dict.fromkeys(shapes))
    probes = machine.probes()
    rows = []
    for shape in one_by_one(shapes):
        rows += time_shape(shape, options.competitors, schedule, options.seed, probes)
    return rows


def time_shape(
    shape: Shape,
    competitors: Sequence[type[Competitor]],
    schedule: Schedule,
    seed: int,
    probes: Mapping[str, Task],
) -> list[Row]:
    """Check all competitors on one shape, then time those that are right, interleaved.

    Args:
        shape: the layer and the batch.
        competitors: the competitors that take part.
        schedule: how long to measure.
        seed: the seed of the problem and of the order within the rounds.
        probes: tasks that measure the machine in the same rounds.

    Returns:
        Two rows for each competitor, `forward` (without recording a graph) and
        `forward+backward`, in which the input requires a gradient; and one row for each probe.
    """
    problem = Problem.draw(shape, seed=seed)
    oracle = Oracle(problem)
    threads = torch.get_num_threads()
    rows: list[Row] = []
    tasks = {(MACHINE, name): task for name, task in probes.items()}
    for kind in competitors:
        status, reason, competitor = admit(kind, problem, oracle)
        if competitor is not None:
            tasks[kind.name, FORWARD] = Task(forward(competitor, problem))
            tasks[kind.name, BOTH] = Task(forward_backward(competitor, problem))
        else:
            rows += [
                Row(shape, kind.name, what, threads, status, reason) for what in (FORWARD, BOTH)
            ]
    del oracle
    for (subject, what), timing in measure(tasks, schedule, seed=seed).items():
        rows.append(Row(shape, subject, what, threads, OK, timing=timing))
    return rows


def _draw(results: Results, path: Path) -> Path:
    from .plots import draw_density

    return draw_density(results, path)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shapes(parser, "peers,dense; with --plot break-even, too")
    parser.add_argument(
        "--competitors",
        type=_some_competitors,
        default=COMPETITORS,
        metavar="LIST",
        help=f"separated by commas (default: {','.join(kind.name for kind in COMPETITORS)})",
    )


def _some_competitors(text: str) -> tuple[type[Competitor], ...]:
    by_name = {kind.name: kind for kind in COMPETITORS}
    unknown = set(text.split(",")) - by_name.keys()
    if unknown:
        raise argparse.ArgumentTypeError(
            f"must be among {', '.join(by_name)}, got {', '.join(sorted(unknown))}"
        )
    return tuple(by_name[name] for name in dict.fromkeys(text.split(",")))


BENCHMARK = Benchmark("layer", str(__doc__), run, report, _draw, _add_arguments)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
