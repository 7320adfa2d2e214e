"""Every fast path is taken where users meet it: by a layer, an optimizer step, an evolution.

A path that is tested on a private object alone may never be taken: the object is given something
else by what users call.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import outcomes_of, print_outcomes
from oracles import OperatorLog, all_same_bits, same_bits
from processes import run_python
from several_ranks import needs_gloo, on_ranks
from small_layers import seeded
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import torch_truly_sparse as tts
from torch_truly_sparse import rules
from torch_truly_sparse.evolution.gradient import search

# Growth by gradient: a layer whose gradient is eight blocks of 2**18 numbers, two for each thread
# that can be of use.
WIDE = 2048, 1024


def names_of(function: Callable[[], object]) -> list[str]:
    """The package's operators that a call runs, in their order."""
    with OperatorLog() as ran:
        function()
    return ran.names


def backward(layer: nn.Module, batch: int, *, for_input: bool = True) -> Callable[[], None]:
    """The backward pass of a fresh output, as a function."""
    output = layer(torch.randn(batch, layer.in_features, requires_grad=for_input))
    return lambda: output.sum().backward()


# A layer's products


@pytest.mark.parametrize("for_input", [False, True])
@pytest.mark.parametrize("batch", [1, 16, 17])
def test_a_backward_pass_is_one_walk_over_the_batch(batch: int, for_input: bool) -> None:
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    layer(torch.ones(20, 9, requires_grad=True))  # derives what it will need
    assert names_of(backward(layer, batch, for_input=for_input)) == ["spmm_backward"]
    inside = nn.Sequential(nn.Linear(4, 9), layer, nn.Linear(6, 1))
    loss = inside(torch.randn(batch, 4)).square().mean()
    assert names_of(loss.backward) == ["spmm_backward"]


# torch.compile makes this warning itself where warnings are errors.
@pytest.mark.filterwarnings("default:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_code_makes_that_walk_too(backend: str) -> None:
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    compiled = torch.compile(layer, backend=backend)
    x = torch.randn(20, 9, requires_grad=True)
    compiled(x).sum().backward()
    output = compiled(x)
    names = names_of(lambda: output.sum().backward())
    torch._dynamo.reset()
    assert names == ["spmm_backward"]


@pytest.mark.parametrize("batch", [1, 20])
def test_a_forward_pass_is_one_product(batch: int) -> None:
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    x = torch.randn(batch, 9)
    assert names_of(lambda: layer(x)) == ["spmm"]
    with torch.no_grad():
        assert names_of(lambda: layer(x)) == ["spmm"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_converted_inside_the_products(dtype: torch.dtype) -> None:
    """No float32 copy of an activation is made on the way."""
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    x = torch.randn(20, 9, dtype=dtype, requires_grad=True)
    layer(x)
    with AllOperators() as ran:
        layer(x).backward(torch.ones(20, 6, dtype=dtype))
    ours = [name for name in ran.names if name.startswith("torch_truly_sparse::")]
    assert ours == [f"torch_truly_sparse::{name}" for name in ("spmm", "spmm_backward")]
    assert not [name for name in ran.names if "_to_copy" in name]


# The transposed order


@pytest.mark.parametrize(("batch", "wanted"), [(1, False), (16, False), (17, True), (40, True)])
def test_the_transposed_order_is_made_for_more_than_16_samples(batch: int, wanted: bool) -> None:
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    names = names_of(lambda: backward(layer, batch)())
    assert ("transpose" in names) == wanted
    assert "transpose" not in names_of(lambda: backward(layer, batch)())


def test_a_first_layer_never_makes_it() -> None:
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    assert "transpose" not in names_of(lambda: backward(layer, 40, for_input=False)())


def input_gradient(layer: tts.TrulySparseLinear, x: Tensor) -> Tensor:
    layer(x).square().sum().backward()
    gradient, x.grad = x.grad, None
    return gradient


def test_it_is_read_above_16_samples_and_not_below() -> None:
    """A scatter in row order and a product in column order add in different orders."""
    layer = tts.TrulySparseLinear(300, 400, density=0.3, generator=seeded())
    few = torch.randn(16, 300, requires_grad=True)
    many = torch.randn(17, 300, requires_grad=True)
    without = input_gradient(layer, few)
    layer(many)  # makes the order
    assert same_bits(input_gradient(layer, few), without)
    topology = tts.Topology.from_indices(layer.indices, (400, 300))  # knows no other order
    stateless = tts.functional.sparse_linear(many, topology, layer.values, layer.bias)
    (scattered,) = torch.autograd.grad(stateless.square().sum(), many)
    gathered = input_gradient(layer, many)
    torch.testing.assert_close(gathered, scattered, rtol=1e-4, atol=1e-4)
    assert not same_bits(gathered, scattered)


def test_what_a_topology_needs_is_derived_once_and_after_an_evolution_again() -> None:
    layer = tts.TrulySparseLinear(9, 6, nnz=20)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(layer, optimizer)

    def three_steps() -> None:
        for _ in range(3):
            backward(layer, 20)()
            optimizer.step()

    assert names_of(three_steps).count("transpose") == 1
    evolution.step()
    after = names_of(three_steps)  # the row pointers came with the check of the next topology
    assert after.count("transpose") <= 1
    assert after.count("compress") == 0


# Memory that is handed out again


FAULTS = """
import resource, torch, torch_truly_sparse as tts
torch.set_num_threads(1)
layer = tts.TrulySparseLinear(1200, 1200, density=0.1)
dense = torch.nn.Linear(1200, 1200)
x, gradient = torch.randn(64, 1200), torch.ones(64, 1200)

def step(layer, weight):
    torch.autograd.grad(layer(x), weight, gradient)

for part, weight in (layer, layer.values), (dense, dense.weight):
    for _ in range(5):
        step(part, weight)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        step(part, weight)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or torch.__version__.startswith("2.10."),
    reason="asks glibc to keep no memory; torch 2.10 cannot build results on memory of ours",
)
def test_a_training_step_takes_the_memory_of_the_one_before(tmp_path: Path) -> None:
    """Fresh memory costs a page fault for each 4 KiB: a dense layer shows that they are counted."""
    keep_none = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    child = run_python("-c", FAULTS, cwd=tmp_path, environment=keep_none)
    assert child.returncode == 0, child.stderr
    ours, dense = map(float, child.stdout.split())
    output = 64 * 1200 * 4 // 4096
    assert dense > output
    assert ours < output / 10


# Evolution

SORTS = ("sort", "argsort", "topk", "kthvalue", "unique", "nonzero", "cumsum", "searchsorted")


class AllOperators(TorchDispatchMode):
    """Notes every operator that runs, torch's among them."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("prune", ["sign_split", "magnitude", "magnitude_gradient", "random"])
def test_an_evolution_at_random_sorts_nothing(prune: str) -> None:
    layer = tts.TrulySparseLinear(90, 60, nnz=500)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    evolution = tts.SparseEvolution(layer, optimizer, prune=prune)
    backward(layer, 3)()
    optimizer.step()
    with AllOperators() as ran:
        evolution.step()
    assert not [name for name in ran.names if name.partition("::")[2].split(".")[0] in SORTS]
    ours = {name.partition("::")[2] for name in ran.names if name.startswith("torch_truly_sparse")}
    marks = {"sign_split": "mark_weakest", "random": "sample"}.get(prune, "mark_smallest")
    assert {marks, "to_positions", "sample", "empty_positions", "merge", "move"} <= ours


def grow(**settings: Any) -> tuple[tts.TrulySparseLinear, tts.SparseEvolution]:
    """A wide layer that is about to grow by gradient; `method` makes its evolution."""
    layer = tts.TrulySparseLinear(*WIDE, bias=False, nnz=5000, generator=seeded())
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    method = settings.pop("method", tts.SparseEvolution)
    evolution = method(layer, optimizer, generator=seeded(1), **settings)
    evolution.arm()
    x = torch.randn(4, WIDE[0], generator=seeded(2))
    layer(x).square().sum().backward()
    optimizer.step()
    return layer, evolution


METHODS = {
    "SparseEvolution": {"regrow": "gradient"},
    "a rule": {"regrow": rules.GradientRegrow()},
    "momentum": {"regrow": rules.MomentumRegrow(steps=1)},
    "RigL": {"method": tts.RigL, "total_steps": 1000},
}


@contextmanager
def searching_threads(together: int = 1) -> Iterator[set[int]]:
    """Note the threads that search blocks; the first `together` of them wait for one another.

    The main thread never waits: where it searches, no other thread does.
    """
    idents: set[int] = set()
    meeting = threading.Barrier(together)
    first = threading.Semaphore(together)
    empty_above = search.empty_above

    def noted(*arguments: Any) -> tuple[Tensor, Tensor]:
        idents.add(threading.get_ident())
        alone = threading.current_thread() is threading.main_thread()
        if not alone and first.acquire(blocking=False):
            meeting.wait()
        return empty_above(*arguments)

    search.empty_above = noted
    try:
        yield idents
    finally:
        search.empty_above = empty_above


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("settings", METHODS.values(), ids=METHODS)
def test_growth_by_gradient_searches_on_several_threads(settings: dict[str, Any]) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(1)
        layer, evolution = grow(**settings)
        torch.set_num_threads(threads)
        with searching_threads(together=threads) as idents:
            evolution.step()
        assert len(idents) == threads
        assert (threading.get_ident() in idents) == (threads == 1)
        results.append(layer.state_dict())
    assert all_same_bits(*results)


@pytest.mark.usefixtures("_restores_threads")
def test_sums_over_processes_are_made_on_one_thread() -> None:
    layer, evolution = grow(regrow="gradient")
    expected, plain = grow(regrow="gradient")
    plain.step()
    evolution.reduce = lambda block: block
    torch.set_num_threads(2)
    with searching_threads() as idents:
        evolution.step()
    assert idents == {threading.get_ident()}
    assert all_same_bits(layer.state_dict(), expected.state_dict())


def grow_on_ranks(rank: int, size: int, folder: Path) -> int:
    """Evolve one prepared layer on all ranks; return how many other threads searched."""
    layer = tts.TrulySparseLinear(*WIDE, bias=False, nnz=5000, generator=seeded(rank))
    model = nn.parallel.DistributedDataParallel(tts.distributed.prepare(layer))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(model, optimizer, regrow="gradient")
    evolution.arm()
    model(torch.randn(4, WIDE[0])).square().sum().backward()
    optimizer.step()
    torch.set_num_threads(2)
    with searching_threads() as idents:
        evolution.step()
    return len(idents - {threading.get_ident()})


@needs_gloo
def test_ranks_that_train_together_search_on_one_thread_each(tmp_path: Path) -> None:
    assert on_ranks(grow_on_ranks, 2, tmp_path) == [0, 0]


# Serial or parallel. A child whose threads have never worked together watches the first operator
# that may use them: where it does, the system counts more threads afterwards.


def _system_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


class ThreadsFor(TorchDispatchMode):
    """Gives three threads to one operator and one to all others; notes what threads it started."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = f"torch_truly_sparse::{name}"
        self.started: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name() != self._name:
            return function(*args, **(kwargs or {}))
        before = _system_threads()
        torch.set_num_threads(3)
        try:
            return function(*args, **(kwargs or {}))
        finally:
            torch.set_num_threads(1)
            self.started.append(_system_threads() - before)


def train_and_evolve(name: str, *, large: bool) -> None:
    """Make a layer, a step and an evolution; raise unless `name` uses threads if `large`."""
    torch.set_num_threads(1)
    with ThreadsFor(name) as watched:
        size = 1500 if large else 60
        layer = tts.TrulySparseLinear(size, size, density=0.05, generator=seeded())
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        evolution = tts.SparseEvolution(layer, optimizer, generator=seeded())
        layer(torch.randn(20, size, requires_grad=True)).square().sum().backward()
        optimizer.step()
        evolution.step()
    assert watched.started, "it did not run"
    assert (max(watched.started) > 0) == large, f"it started {watched.started} threads"


OPERATORS = [
    "spmm",
    "spmm_backward",
    "sample",
    "compress",
    "mark_weakest",
    "to_positions",
    "empty_positions",
    "merge",
    "move",
]


@pytest.fixture(scope="session")
def outcomes() -> dict[str, str]:
    return outcomes_of(__file__)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")
@pytest.mark.parametrize("large", [True, False], ids=["large", "small"])
@pytest.mark.parametrize("name", OPERATORS)
def test_large_layers_use_all_threads_and_small_ones_none(
    outcomes: dict[str, str], name: str, large: bool
) -> None:
    assert outcomes[f"{name}, {large}"] == "done"


if __name__ == "__main__":
    print_outcomes(
        {
            f"{name}, {large}": lambda name=name, large=large: train_and_evolve(name, large=large)
            for name in OPERATORS
            for large in (True, False)
        }
    )
