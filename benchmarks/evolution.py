"""Times one evolution of a layer, with growth at random and with growth by gradient."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import Tensor

import torch_truly_sparse as tts

from .command_line import Benchmark, main, tell
from .competitors import OURS, Dense
from .markdown import absences, digits, header, milliseconds, table
from .results import GRAD_WEIGHT, OK, WRONG, Results, Row
from .shapes import STREAMING, Shape
from .timing import Schedule, Task, measure

EVOLUTION, STEP, STEP_AND_EVOLUTION = "evolution", "step", "step+evolution"
FRACTION = 0.3
# At random: 12 million weights, or a tenth. By gradient: a layer whose dense gradient is 64 MiB.
AT_RANDOM, SMALLER = STREAMING[0], Shape(30_000, 30_000, 2, 1.2e6 / 30_000**2)
BY_GRADIENT = Shape(4096, 4096, 64, 0.05)
QUICK = Shape(2000, 2000, 2, 0.01), Shape(256, 256, 16, 0.05)
# A float32 gradient is off by less than this, relative to the largest one: ties are no errors.
_TOLERANCE = 1e-5


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure both kinds of growth."""
    at_random, by_gradient = QUICK if options.quick else (AT_RANDOM, BY_GRADIENT)
    if options.smaller and not options.quick:
        at_random = SMALLER
    tell(f"[1/2] at random: {at_random}")
    rows = time_random(at_random, schedule, options.seed)
    tell(f"[2/2] by gradient: {by_gradient}")
    return rows + time_gradient(by_gradient, schedule, options.seed)


@dataclass(frozen=True)
class Training:
    """A layer without bias, trained by SGD with momentum on one batch."""

    layer: tts.TrulySparseLinear
    optimizer: torch.optim.Optimizer
    evolution: tts.SparseEvolution
    input: Tensor
    grad_output: Tensor

    @classmethod
    def draw(cls, shape: Shape, prune: str, regrow: str, seed: int) -> Training:
        """Draw a layer and a batch, and make the first step, which creates the momentum."""
        generator = torch.Generator().manual_seed(seed)
        layer = tts.TrulySparseLinear(
            shape.in_features, shape.out_features, bias=False, nnz=shape.nnz, generator=generator
        )
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9, fused=True)
        evolution = tts.SparseEvolution(
            layer, optimizer, prune=prune, regrow=regrow, fraction=FRACTION, generator=generator
        )
        input = torch.randn(shape.batch, shape.in_features, generator=generator)
        grad_output = torch.randn(shape.batch, shape.out_features, generator=generator)
        training = cls(layer, optimizer, evolution, input, grad_output)
        training.step()
        return training

    def step(self) -> None:
        """Make one optimizer step."""
        self.optimizer.zero_grad()
        self.layer(self.input).backward(self.grad_output)
        self.optimizer.step()

    def step_and_evolve(self) -> None:
        """Make one optimizer step from which growth by gradient can choose, then evolve."""
        self.evolution.arm()
        self.step()
        self.evolution.step()

    def dense_gradient(self) -> Tensor:
        """Compute the gradient of all positions, as a dense layer does."""
        return self.grad_output.t() @ self.input

    def survey(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copy positions, weights and momentum."""
        weights = self.layer.values
        momentum = self.optimizer.state[weights]["momentum_buffer"]
        positions = self.layer.topology.positions()
        return positions, weights.detach().clone(), momentum.clone()


def check(training: Training) -> str:
    """Evolve once; return what is wrong with the outcome, or an empty text."""
    training.evolution.arm()
    training.step()
    before, *carried = training.survey()
    record = training.evolution.step()
    after, *arrived = training.survey()
    if not after.diff().gt(0).all() or after.shape != before.shape:
        return "the topology is not sorted, unique and of the same size"
    places = torch.searchsorted(before, after).clamp_(max=before.shape[0] - 1)
    held = before[places] == after
    # A dropped connection may grow again at once, as a new one. A connection is the old one where
    # its weight and its momentum are the old ones, too.
    stays = held & (arrived[0] == carried[0][places]) & (arrived[1] == carried[1][places])
    fresh = int(stays.numel() - stays.sum())
    if fresh != record.regrown or record.regrown == 0:
        return f"{fresh} connections changed, {record.regrown} were to be replaced"
    if training.evolution.regrow.gradient_steps:
        gradient = (training.grad_output.double().t() @ training.input.double()).flatten().abs_()
        grown = gradient[after[~stays]].min()
        gradient[after] = 0
        if gradient.max() > grown + _TOLERANCE * grown:
            return "an empty position has a larger gradient than one that grew"
    return ""


def time_random(shape: Shape, schedule: Schedule, seed: int) -> list[Row]:
    """Time an evolution by sign and at random (SET), the momentum of SGD included."""
    training = Training.draw(shape, "sign_split", "random", seed)
    return _time(
        shape, training, {(OURS, EVOLUTION): Task(training.evolution.step)}, schedule, seed
    )


def time_gradient(shape: Shape, schedule: Schedule, seed: int) -> list[Row]:
    """Time steps with and without growth by gradient (RigL), and one dense weight gradient."""
    training = Training.draw(shape, "magnitude", "gradient", seed)
    tasks = {
        (OURS, STEP): Task(training.step),
        (OURS, STEP_AND_EVOLUTION): Task(training.step_and_evolve),
        (Dense.name, GRAD_WEIGHT): Task(training.dense_gradient),
    }
    return _time(shape, training, tasks, schedule, seed)


def _time(
    shape: Shape,
    training: Training,
    tasks: dict[tuple[str, str], Task],
    schedule: Schedule,
    seed: int,
) -> list[Row]:
    threads = torch.get_num_threads()
    reason = check(training)
    if reason:
        return [
            Row(shape, OURS, what, threads, WRONG, reason) for name, what in tasks if name == OURS
        ]
    return [
        Row(shape, name, what, threads, OK, timing=timing)
        for (name, what), timing in measure(tasks, schedule, seed=seed).items()
    ]


def report(results: Results) -> str:
    """Make Markdown."""
    at_random, by_gradient = [], []
    for shape in results.shapes:
        evolution = results.find(shape, OURS, EVOLUTION)
        if evolution is not None and evolution.timing is not None:
            nanoseconds = evolution.timing.median / shape.nnz * 1e9
            row = [str(shape), f"{shape.nnz:,}", milliseconds(evolution.timing)]
            at_random.append([*row, digits(nanoseconds)])
        found = [results.find(shape, OURS, what) for what in (STEP, STEP_AND_EVOLUTION)]
        found.append(results.find(shape, Dense.name, GRAD_WEIGHT))
        timings = [row.timing for row in found if row is not None and row.timing is not None]
        if len(timings) == 3:
            alone, both, dense = (timing.median for timing in timings)
            row = [str(shape), *map(milliseconds, timings), digits((both - alone) * 1e3)]
            by_gradient.append([*row, digits((both - alone) / dense)])
    size = "in x out x batch @ density"
    parts = ["# Evolution\n\n" + header(results)]
    head = [size, "weights", "evolution, ms", "ns a weight"]
    parts.append("## At random (SET), with the momentum of SGD\n\n" + table(head, at_random))
    head = [
        f"{size}, ms",
        "step",
        "step+evolution",
        "dense dW",
        "evolution",
        "evolution / dense dW",
    ]
    parts.append("## By gradient (RigL)\n\n" + table(head, by_gradient))
    parts += absences(results.rows)
    return "\n\n".join(parts) + "\n"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    text = f"grow at random among {SMALLER.nnz:,} weights instead of {AT_RANDOM.nnz:,}"
    parser.add_argument("--smaller", action="store_true", help=text)


BENCHMARK = Benchmark("evolution", str(__doc__), run, report, add_arguments=_add_arguments)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
