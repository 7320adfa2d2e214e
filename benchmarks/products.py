"""Times each of our products by itself, against dense sgemm and the memory's speed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from torch_truly_sparse import ops

from . import machine
from .command_line import Benchmark, add_shapes, main, one_by_one
from .competitors import OURS, TrulySparse
from .contest import wrong
from .correctness import Oracle
from .markdown import absences, digits, header, milliseconds, table
from .problem import Problem
from .results import BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT, MACHINE, OK, WRONG, Results, Row
from .shapes import QUICK, STREAMING, Shape
from .timing import Schedule, Task, measure

SHAPES = [
    Shape(1024, 1024, 128, 0.1),
    Shape(1024, 1024, 128, 0.05),
    Shape(640, 2560, 1024, 0.1),
    Shape(768, 3072, 2048, 0.1),
    Shape(3072, 4000, 128, 0.1),
    Shape(4096, 4096, 64, 0.1),
    Shape(20_000, 10_000, 32, 0.003),
    Shape(3312, 3000, 2, 0.0128),
    *STREAMING,
]


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure all shapes that were asked for."""
    shapes = options.shapes or (QUICK if options.quick else SHAPES)
    probes = machine.probes()
    rows = []
    for shape in one_by_one(shapes):
        rows += time_shape(shape, schedule, options.seed, probes)
    return rows


def time_shape(
    shape: Shape, schedule: Schedule, seed: int, probes: Mapping[str, Task]
) -> list[Row]:
    """Check the products on one shape, then time them interleaved with the probes.

    Returns:
        A row for `forward`, `dX` and `dW`, the bare operators without autograd; for `backward`,
        both gradients as autograd asks for them; and for each probe.
    """
    problem = Problem.draw(shape, seed=seed)
    products = bare_products(problem)
    threads = torch.get_num_threads()
    results = [products[name]() for name in (FORWARD, GRAD_INPUT, GRAD_WEIGHT)]
    reason = wrong(Oracle(problem).errors(*results))
    if reason:
        return [Row(shape, OURS, name, threads, WRONG, reason) for name in products]
    tasks = {(OURS, name): Task(call) for name, call in products.items()}
    tasks[OURS, BACKWARD] = Task(_backward(problem))
    tasks |= {(MACHINE, name): task for name, task in probes.items()}
    return [
        Row(shape, subject, name, threads, OK, timing=timing)
        for (subject, name), timing in measure(tasks, schedule, seed=seed).items()
    ]


def bare_products(problem: Problem) -> dict[str, Callable[[], Tensor]]:
    """Bind the operators to the operands of a problem."""
    topology, values = problem.topology, problem.values
    x, dy = problem.input.detach(), problem.grad_output
    _ = topology.transposed  # derived once, as a layer does
    return {
        FORWARD: partial(ops.spmm, topology, x, values),
        GRAD_INPUT: partial(ops.spmm_transposed, topology, dy, values),
        GRAD_WEIGHT: partial(ops.sddmm, topology, dy, x),
    }


def _backward(problem: Problem) -> Callable[[], object]:
    layer = TrulySparse(problem)
    leaves = (problem.input, layer.weight)
    output = layer.forward(problem.input)
    return partial(torch.autograd.grad, output, leaves, problem.grad_output, retain_graph=True)


def report(results: Results) -> str:
    """Make Markdown."""
    head = ["in x out x batch @ density", "product", "ms", "GFLOP/s", "of sgemm", "GB/s", "of DRAM"]
    rows = []
    for row in results.rows:
        sgemm = results.machine_rate(row.shape, "sgemm")
        dram = results.machine_rate(row.shape, "DRAM")
        if row.subject == OURS and row.timing is not None and sgemm and dram:
            rows.append(
                [
                    str(row.shape),
                    row.measure,
                    milliseconds(row.timing),
                    digits(row.gflops),
                    f"{row.gflops / sgemm:.0%}",
                    digits(row.weight_bandwidth),
                    f"{row.weight_bandwidth / dram:.0%}",
                ]
            )
    parts = [
        "# The products\n\n" + header(results),
        "GB/s counts the bytes of the weights alone: 8 a weight for each product, 12 for the "
        "whole backward pass.",
        table(head, rows),
        *absences(results.rows),
    ]
    return "\n\n".join(parts) + "\n"


BENCHMARK = Benchmark(
    "products",
    str(__doc__),
    run,
    report,
    add_arguments=partial(add_shapes, default="nine, from small to streaming"),
)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
