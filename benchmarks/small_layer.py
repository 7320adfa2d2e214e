"""Times tiny layers, where a call costs more than its arithmetic, against `nn.Linear`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

import torch_truly_sparse as tts

from .command_line import Benchmark, main, tell
from .competitors import OURS, Dense
from .markdown import absences, digits, header, table
from .results import BOTH, FORWARD, OK, WRONG, Results, Row
from .shapes import Shape
from .timing import Schedule, Task, measure

_TOLERANCE = 1e-5  # of outputs of order 1: sums of at most 26 products in float32
SHAPES = [Shape(64, 64, 1, 0.1), Shape(64, 64, 32, 0.1), Shape(256, 256, 1, 0.1)]


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure all tiny layers."""
    rows = []
    for shape in SHAPES:
        tell(str(shape))
        rows += time_shape(shape, schedule, options.seed)
    return rows


def time_shape(shape: Shape, schedule: Schedule, seed: int) -> list[Row]:
    """Compare a sparse layer with its dense copy, both with a bias, as in a network."""
    generator = torch.Generator().manual_seed(seed)
    sparse = tts.TrulySparseLinear(
        shape.in_features, shape.out_features, nnz=shape.nnz, generator=generator
    )
    layers: dict[str, nn.Module] = {OURS: sparse, Dense.name: sparse.to_dense()}
    x = torch.randn(shape.batch, shape.in_features, generator=generator).requires_grad_()
    threads = torch.get_num_threads()
    with torch.no_grad():
        off = (layers[OURS](x) - layers[Dense.name](x)).abs().max().item()
    if not off < _TOLERANCE:
        reason = f"differs from the dense layer by {off:.3g}"
        return [Row(shape, OURS, what, threads, WRONG, reason) for what in (FORWARD, BOTH)]
    tasks = {}
    for name, layer in layers.items():
        tasks[name, FORWARD] = Task(_forward(layer, x))
        tasks[name, BOTH] = Task(_forward_backward(layer, x))
    return [
        Row(shape, name, what, threads, OK, timing=timing)
        for (name, what), timing in measure(tasks, schedule, seed=seed).items()
    ]


def _forward(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.no_grad():
            output: Tensor = layer(x)
        return output

    return call


def _forward_backward(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    leaves = [x, *layer.parameters()]
    grad_output = torch.ones_like(layer(x))

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        layer(x).backward(grad_output)

    return call


def report(results: Results) -> str:
    """Make Markdown."""
    head = ["in x out x batch @ density, microseconds", "work", "sparse", "dense", "sparse / dense"]
    rows = []
    for shape in results.shapes:
        for what in (FORWARD, BOTH):
            found = [results.find(shape, name, what) for name in (OURS, Dense.name)]
            timings = [row.timing for row in found if row is not None and row.timing is not None]
            if len(timings) == 2:
                times = [f"{digits(t.median * 1e6)} ±{t.spread:.0%}" for t in timings]
                ratio = digits(timings[0].median / timings[1].median)
                rows.append([str(shape), what, *times, ratio])
    parts = ["# Tiny layers\n\n" + header(results), table(head, rows), *absences(results.rows)]
    return "\n\n".join(parts) + "\n"


BENCHMARK = Benchmark("small_layer", str(__doc__), run, report)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
