"""Times a step and an epoch of a small network, where calls cost more than arithmetic.

The network of the microarray study, 2000-1000-1000-1000-2 with 142,000 weights: 21 steps and an
evolution are an epoch. Beside it the same network dense and masked, and the bare operators of the
sparse layers: the same arithmetic without autograd, modules and Python's share of an optimizer.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse import ops

from .command_line import Benchmark, main, tell
from .competitors import OURS, Dense, MaskedDense
from .markdown import absences, digits, header, table
from .results import OK, WRONG, Results, Row
from .shapes import Shape
from .timing import Schedule, Task, measure

WIDTHS, CLASSES = (2000, 1000, 1000, 1000), 2
BATCHES = (2, 16)
STEPS = 21  # of an epoch
EPSILON = 20
BARE = "bare operators"
SUBJECTS = (OURS, BARE, MaskedDense.name, Dense.name)

# What is timed; of the first three each with all before it, so that differences are the parts.
FORWARD, BACKWARD, STEP, EVOLUTION = "forward", "+ backward", "+ optimizer", "evolution"
PARTS = (FORWARD, BACKWARD, STEP, EVOLUTION)
_TOLERANCE = 1e-4  # of outputs of order 1, through four layers in float32


def run(options: argparse.Namespace, schedule: Schedule) -> list[Row]:
    """Measure both batches; a quick run takes a network a tenth as wide."""
    widths = tuple(width // 10 for width in WIDTHS) if options.quick else WIDTHS
    rows = []
    for batch in BATCHES:
        tell(f"batch {batch}")
        rows += time_network(widths, batch, schedule, options.seed)
    return rows


def time_network(widths: tuple[int, ...], batch: int, schedule: Schedule, seed: int) -> list[Row]:
    """Check that all networks compute the same, then time them interleaved."""
    torch.manual_seed(seed)
    sparse = network(widths)
    first = sparse[0]
    assert isinstance(first, tts.TrulySparseLinear)
    shape = Shape(widths[0], widths[1], batch, first.topology.density)  # stands for the network
    networks = {
        OURS: sparse,
        MaskedDense.name: _replaced(sparse, tts.MaskedLinear.from_sparse),
        Dense.name: tts.densify(sparse),
    }
    x, y = torch.randn(batch, widths[0]), torch.arange(batch) % CLASSES
    threads = torch.get_num_threads()
    with torch.no_grad():
        outputs = {name: net(x) for name, net in networks.items()}
    outputs[BARE] = Bare(sparse, batch).forward(x)[-1]
    wrong = {
        name: off
        for name, output in outputs.items()
        if not (off := (output - outputs[Dense.name]).abs().max().item()) < _TOLERANCE
    }
    tasks: dict[tuple[str, str], Task] = {}
    for name, net in networks.items():
        for part, call in _calls(net, x, y, evolves=name != Dense.name).items():
            tasks[name, part] = Task(call)
    bare = Bare(sparse, batch)
    tasks[BARE, FORWARD] = Task(lambda: bare.forward(x))
    tasks[BARE, BACKWARD] = Task(lambda: bare.backward(x))
    tasks[BARE, STEP] = Task(lambda: bare.step(x))
    right = {key: task for key, task in tasks.items() if key[0] not in wrong}
    rows = [
        Row(shape, name, part, threads, WRONG, f"differs from dense by {off:.3g}")
        for name, off in wrong.items()
        for part in PARTS
    ]
    return rows + [
        Row(shape, name, part, threads, OK, timing=timing)
        for (name, part), timing in measure(right, schedule, seed=seed).items()
    ]


def network(widths: tuple[int, ...]) -> nn.Sequential:
    """Make a network whose hidden layers are sparse."""
    modules: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        modules += [tts.TrulySparseLinear(inputs, outputs, epsilon=EPSILON), nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(widths[-1], CLASSES))


def _replaced(
    net: nn.Sequential, replace: Callable[[tts.TrulySparseLinear], nn.Module]
) -> nn.Sequential:
    return nn.Sequential(
        *(
            replace(module) if isinstance(module, tts.TrulySparseLinear) else copy.deepcopy(module)
            for module in net
        )
    )


def _calls(
    net: nn.Module, x: Tensor, y: Tensor, *, evolves: bool
) -> dict[str, Callable[[], object]]:
    """Return what is timed of one network; it trains on, on one batch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(net(x), y)

    def gradients() -> None:
        optimizer.zero_grad()
        loss().backward()

    def step() -> None:
        gradients()
        optimizer.step()

    step()  # fills the optimizer's state
    calls: dict[str, Callable[[], object]] = {FORWARD: loss, BACKWARD: gradients, STEP: step}
    if evolves:
        calls[EVOLUTION] = tts.SparseEvolution(net, optimizer).step
    return calls


class Bare:
    """The arithmetic of a step of the sparse layers and the head, on plain tensors.

    The gradient that comes to the outputs is one, and momentum is one fused pass over each array.
    """

    def __init__(self, net: nn.Sequential, batch: int) -> None:
        layers = [module for module in net if isinstance(module, tts.TrulySparseLinear)]
        self._layers = [
            (layer.topology.parts, layer.values.detach().clone(), layer.bias.detach().clone())
            for layer in layers
            if layer.bias is not None
        ]
        head = net[-1]
        assert isinstance(head, nn.Linear)
        self._head = head.weight.detach().clone(), head.bias.detach().clone()
        arrays = [array for _, *pair in self._layers for array in pair] + [*self._head]
        self.arrays = arrays
        self._momenta = [torch.zeros_like(array) for array in arrays]
        self._ones = torch.ones(batch, CLASSES)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the inputs of all layers, and the outputs."""
        passed = [x]
        for topology, values, bias in self._layers:
            passed.append(ops.spmm(topology, passed[-1], values, bias).relu_())
        passed.append(torch.addmm(self._head[1], passed[-1], self._head[0].t()))
        return passed

    @torch.no_grad()
    def backward(self, x: Tensor) -> list[Tensor]:
        """Return the gradients of all arrays, in their order."""
        passed = self.forward(x)
        g = self._ones
        gradients = [g.sum(0), g.t() @ passed[-2]]
        g = g @ self._head[0]
        for number in reversed(range(len(self._layers))):
            topology, values, _ = self._layers[number]
            g = g * (passed[number + 1] > 0)
            of = ops.spmm_backward(
                topology, g, passed[number], values, for_input=number > 0, for_bias=True
            )
            assert of.grad_bias is not None
            gradients += [of.grad_bias, of.grad_values]
            if of.grad_input is not None:
                g = of.grad_input
        return gradients[::-1]

    @torch.no_grad()
    def step(self, x: Tensor) -> None:
        """Take a step of SGD with momentum."""
        gradients = self.backward(x)
        torch._foreach_mul_(self._momenta, 0.9)
        torch._foreach_add_(self._momenta, gradients)
        torch._foreach_add_(self.arrays, self._momenta, alpha=-1e-6)


def report(results: Results) -> str:
    """Make Markdown: what each part takes, and the epoch."""
    parts = ["# A small network\n\n" + header(results)]
    for shape in results.shapes:
        rows = []
        for name in SUBJECTS:
            found = {part: results.find(shape, name, part) for part in PARTS}
            times = {p: r.timing.median * 1e6 for p, r in found.items() if r and r.timing}
            if not {FORWARD, BACKWARD, STEP} <= times.keys():
                continue
            forward, backward, step = times[FORWARD], times[BACKWARD], times[STEP]
            evolution = times.get(EVOLUTION, 0.0)
            cells = [forward, backward - forward, step - backward, step, evolution]
            epoch = (STEPS * step + evolution) / 1e3
            rows.append([name, *map(digits, cells), digits(epoch)])
        parts.append(
            f"Batch {shape.batch}, microseconds; the epoch of {STEPS} steps, milliseconds:"
        )
        head = ["", "forward", "backward", "optimizer", "step", "evolution", "epoch, ms"]
        parts.append(table(head, rows))
    return "\n\n".join([*parts, *absences(results.rows)]) + "\n"


BENCHMARK = Benchmark("small_network", str(__doc__), run, report)

if __name__ == "__main__":
    raise SystemExit(main(BENCHMARK))
