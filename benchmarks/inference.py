"""Times inference of one layer: packed and not, beside dense float32, bfloat16 and int8.

    python -m benchmarks.inference                # batches of 1, 8 and 32
    python -m benchmarks.inference --threads 1 --batches 1,2,4

TORCH_TRULY_SPARSE_ISA=avx2 measures what processors without AVX-512 do.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse.nn import PackedLinear

from .command_line import Benchmark, main, one_by_one, whole_number
from .competitors import OURS
from .markdown import absences, digits, header, table
from .results import FORWARD, OK, WRONG, Results, Row
from .shapes import Shape
from .timing import Schedule, Task, measure

SIZES = ((1000, 1000), (4096, 1024), (768, 3072), (4096, 4096))
DENSITIES = (0.2, 0.1, 0.05)
BATCHES = (1, 8, 32)

PACKED = {torch.float32: "packed float32", torch.bfloat16: "packed bfloat16"}
PACKED[torch.int8] = "packed int8"
DENSE, DENSE_HALF, DENSE_INT8 = "dense", "dense bfloat16", "dense int8"
CSR = "torch CSR"
SUBJECTS = (OURS, *PACKED.values(), DENSE, DENSE_HALF, DENSE_INT8, CSR)

# How far outputs of order 1 may lie from those in float64, by the width of the weights.
_TOLERANCE = {OURS: 1e-5, "packed float32": 1e-5, DENSE: 1e-5, CSR: 1e-5}
_ROUNDED = 0.1  # bfloat16 and int8: of weights, and of inputs in the dense layers


class Candidate:
    """One way to compute a layer.

    Attributes:
        call: computes it.
        output: the result, as float64.
        nbytes: bytes that it holds.
    """

    def __init__(self, call: Callable[[], Tensor], nbytes: int) -> None:
        self.call, self.nbytes = call, nbytes
        self.output = call().double()


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure every size, density and batch."""
    sizes = SIZES[:1] if options.quick else SIZES
    densities = DENSITIES[:1] if options.quick else DENSITIES
    shapes = [
        Shape(*size, batch, density)
        for size in sizes
        for density in densities
        for batch in options.batches
    ]
    rows = []
    for shape in one_by_one(shapes):
        rows += time_shape(shape, schedule, options.seed)
    return rows


@torch.inference_mode()
def time_shape(shape: Shape, schedule: Schedule, seed: int) -> list[Row]:
    """Check all candidates against float64, then time those that are right, interleaved.

    Returns:
        A row for each; `detail` is the number of bytes that it holds.
    """
    threads = torch.get_num_threads()
    candidates, expected = candidates_of(shape, seed)
    rows, tasks = [], {}
    for name, candidate in candidates.items():
        off = (candidate.output - expected).abs().max().item() if expected.numel() else 0.0
        if off <= _TOLERANCE.get(name, _ROUNDED) * max(1.0, expected.abs().max().item()):
            tasks[name] = Task(candidate.call)
        else:
            rows.append(Row(shape, name, FORWARD, threads, WRONG, f"is off by {off:.3g}"))
    timings = measure(tasks, schedule, seed=seed)
    return rows + [
        Row(shape, name, FORWARD, threads, OK, str(candidates[name].nbytes), timing)
        for name, timing in timings.items()
    ]


def candidates_of(shape: Shape, seed: int) -> tuple[dict[str, Candidate], Tensor]:
    """Return all ways to compute a layer by their names, and its outputs in float64."""
    generator = torch.Generator().manual_seed(seed)
    layer = tts.TrulySparseLinear(
        shape.in_features, shape.out_features, nnz=shape.nnz, generator=generator
    )
    x = torch.randn(shape.batch, shape.in_features, generator=generator)
    dense = layer.to_dense()
    expected = x.double() @ dense.weight.double().t() + dense.bias.double()
    # Values, COO indices, and the row pointers that are derived from them.
    own = _bytes(layer) + layer.indices.nbytes + layer.topology.row_pointers.nbytes
    found = {OURS: Candidate(lambda: layer(x), own)}
    for dtype, name in PACKED.items():
        packed = PackedLinear.from_sparse(layer, dtype)
        found[name] = Candidate(partial(packed, x), packed.nbytes)
    found[DENSE] = Candidate(lambda: dense(x), _bytes(dense))
    half, half_x = layer.to_dense().bfloat16(), x.bfloat16()
    found[DENSE_HALF] = Candidate(lambda: half(half_x), _bytes(half))
    int8 = _quantized(dense)
    if int8 is not None:
        found[DENSE_INT8] = Candidate(lambda: int8(x), dense.weight.numel() + dense.bias.nbytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its CSR support a beta
        csr, bias = dense.weight.detach().to_sparse_csr(), dense.bias
    held = sum(part.nbytes for part in (csr.crow_indices(), csr.col_indices(), csr.values()))
    found[CSR] = Candidate(lambda: torch.sparse.mm(csr, x.t()).t() + bias, held + bias.nbytes)
    return found, expected


def _bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in module.parameters())


def _quantized(dense: nn.Linear) -> nn.Module | None:
    """Return torch's dynamically quantized int8 layer, or None where torch has none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have torchao used
        try:
            made = torch.ao.quantization.quantize_dynamic(nn.Sequential(dense), {nn.Linear})
        except (AttributeError, RuntimeError):
            return None
    module: nn.Module = made[0]
    return module


def report(results: Results) -> str:
    """Make Markdown: times, their ratios to the unpacked layer, and bytes a weight."""
    head = ["in x out x batch @ density, microseconds", *SUBJECTS]
    times, ratios, sizes = [], [], []
    for shape in results.shapes:
        found = {name: results.find(shape, name, FORWARD) for name in SUBJECTS}
        timed = {name: r.timing for name, r in found.items() if r is not None and r.timing}
        times.append(
            [str(shape), *(digits(t.median * 1e6) if (t := timed.get(n)) else "" for n in SUBJECTS)]
        )
        if OURS in timed:
            ours = timed[OURS].median
            cells = [digits(t.median / ours) if (t := timed.get(n)) else "" for n in SUBJECTS]
            ratios.append([str(shape), *cells])
        held = [found[n] for n in SUBJECTS]
        sizes.append(
            [
                str(shape),
                *(f"{int(r.detail) / shape.nnz:.2f}" if r and r.timing else "" for r in held),
            ]
        )
    parts = [
        "# Inference of one layer\n\n" + header(results),
        table(head, times),
        "Time of each as a multiple of the unpacked layer's:",
        table(["", *SUBJECTS], ratios),
        "Bytes for each weight of the sparse layer:",
        table(["", *SUBJECTS], sizes),
        *absences(results.rows),
    ]
    return "\n\n".join(parts) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the option that only this benchmark has."""
    parser.add_argument(
        "--batches",
        type=lambda text: [whole_number(part) for part in text.split(",")],
        default=list(BATCHES),
        metavar="LIST",
        help="batch sizes, separated by commas (default: 1,8,32)",
    )


BENCHMARK = Benchmark("inference", str(__doc__), run, report, add_arguments=add_arguments)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
