"""What days bring: a full disk, no memory, Ctrl-C, forks, several models at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from oracles import same_bits
from processes import run_python, started_python
from torch import nn

import torch_truly_sparse as tts

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")

# A network that trains, to be continued by what each test makes of it.
NETWORK = """
import os, resource, signal, sys
import torch
import torch_truly_sparse as tts

def network(scale=1):
    g = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(
        tts.TrulySparseLinear(2000 * scale, 3000, nnz=200_000 * scale, generator=g),
        torch.nn.ReLU(),
        tts.TrulySparseLinear(3000, 5, nnz=9_000, generator=g),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    evolution = tts.SparseEvolution(model, optimizer, generator=torch.Generator().manual_seed(1))
    return model, optimizer, evolution

def step(model, optimizer):
    optimizer.zero_grad()
    model(torch.ones(40, model[0].in_features)).square().mean().backward()
    optimizer.step()
"""


def run(program: str, folder: Path) -> str:
    done = run_python("-c", NETWORK + program, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_linux
def test_a_disk_that_is_full_leaves_the_earlier_checkpoint(tmp_path):
    """A limit on the size of files fails the write as a full disk does, at any byte of it."""
    program = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model, optimizer, evolution = network()
step(model, optimizer)
parts = {"model": model, "optimizer": optimizer, "evolution": evolution}
tts.checkpoint.save("run.pt", **parts, epoch=1)

def resumed():
    model, optimizer, evolution = network()
    fresh = {"model": model, "optimizer": optimizer, "evolution": evolution}
    return tts.checkpoint.resume("run.pt", **fresh)["epoch"]

size = os.path.getsize("run.pt")
step(model, optimizer)
evolution.step()
for room in (0, 1, 100, size // 2, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    try:
        tts.checkpoint.save("run.pt", **parts, epoch=2)
    except (OSError, RuntimeError) as error:
        print("refused", type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert os.listdir(".") == ["run.pt"], os.listdir(".")
    assert resumed() == 1
tts.checkpoint.save("run.pt", **parts, epoch=2)
assert resumed() == 2
"""
    assert run(program, tmp_path).count("refused") == 5


@needs_linux
@pytest.mark.parametrize("megabytes", [8, 40, 150])
def test_without_memory_there_is_an_error_and_nothing_has_changed(megabytes, tmp_path):
    """MemoryError where this library allocates, and torch's own error where torch does."""
    program = f"""
torch.set_num_threads(1)
model, optimizer, evolution = network(10)
step(model, optimizer)
expected = model(torch.ones(3, 20_000)).detach()
before = [tensor.clone() for tensor in model.state_dict().values()]
indices = torch.stack([torch.arange(3_000_000), torch.arange(3_000_000)])
attempts = {{
    "product": lambda: tts.ops.spmm(model[0].topology, model[0].values, torch.ones(9_000, 20_000)),
    "layer": lambda: tts.TrulySparseLinear(10**6, 10**6, nnz=20_000_000),
    "topology": lambda: tts.Topology.from_indices(indices, (3 * 10**6, 9 * 10**6)),
    "dense": lambda: model[0].to_dense(),
    "evolution": lambda: evolution.step(),
    "passes": lambda: [model(torch.ones(4_000, 20_000)).sum().backward() for _ in range(2)],
}}
for name, attempt in attempts.items():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + {megabytes} * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    try:
        attempt()
        print(name, "fits")
    except MemoryError:
        print(name, "MemoryError")
    except RuntimeError as error:
        assert "allocate memory" in str(error), error
        print(name, "torch's error")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if name != "evolution":
        assert torch.equal(model(torch.ones(3, 20_000)), expected)
        for a, b in zip(before, model.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    step(model, optimizer)
    model.load_state_dict(dict(zip(model.state_dict(), before)))
"""
    said = run(program, tmp_path).split("\n")[:-1]
    assert len(said) == 6
    assert not said[1].endswith("fits")
    assert not said[3].endswith("fits")


@needs_linux
def test_control_c_during_a_long_product_interrupts_after_it_and_breaks_nothing(tmp_path):
    program = """
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have it ignored
torch.set_num_threads(2)
model, optimizer, evolution = network()
x = torch.ones(20_000, 2000)
expected = model(x)
interrupts = 0
while interrupts < 3:
    try:
        print("computing", flush=True)  # from here on it may be interrupted
        while True:
            model(x)
            evolution.step()
            model.load_state_dict(model.state_dict())
    except KeyboardInterrupt:
        interrupts += 1
        assert model(x).isfinite().all()
fresh = network()[0]
assert torch.equal(fresh(x), expected)
"""
    with started_python("-c", NETWORK + program, cwd=tmp_path) as process:
        for _ in range(3):
            assert process.stdout.readline() == "computing\n"
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 0, errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_forks_while_another_thread_computes(tmp_path):
    """The child has one thread; no lock of this library may be held by those it has not got."""
    program = """
import threading
torch.set_num_threads(1)
model, optimizer, evolution = network()
layer = tts.TrulySparseLinear(400, 400, nnz=40_000)
x, dy = torch.ones(2, 400), torch.ones(2, 400)

def compute():  # 160 KB, which come from the memory that this library keeps
    return tts.ops.sddmm(layer.topology, dy, x)

def go_on():
    while not done.is_set():
        compute()

expected, done = compute(), threading.Event()
threads = [threading.Thread(target=go_on) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(300):
    child = os.fork()
    if child == 0:
        signal.alarm(300)  # a child that waits for ever is a failure, not a hang
        os._exit(0 if torch.equal(compute(), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
done.set()
for thread in threads:
    thread.join()
"""
    run("import warnings; warnings.simplefilter('ignore')" + program, tmp_path)


@pytest.mark.usefixtures("_restores_threads")
def test_models_in_several_threads_learn_what_each_learns_alone():
    torch.set_num_threads(2)

    def train(seed: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(seed)
        model = nn.Sequential(
            tts.TrulySparseLinear(400, 300, density=0.2, generator=g),
            nn.ReLU(),
            tts.TrulySparseLinear(300, 5, density=0.5, generator=g),
        )
        optimizer = torch.optim.Adam(model.parameters())
        tts.SparseEvolution(
            model, optimizer, prune="magnitude", regrow="gradient", every=4, generator=g
        )
        x = torch.randn(64, 400, generator=g)
        for _ in range(20):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        return [tensor.clone() for tensor in model.state_dict().values()]

    alone = [train(seed) for seed in range(4)]
    together: list[list[torch.Tensor] | None] = [None] * 4

    def store(seed: int) -> None:
        together[seed] = train(seed)

    threads = [threading.Thread(target=store, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        assert b is not None
        assert all(same_bits(x, y) for x, y in zip(a, b, strict=True))
