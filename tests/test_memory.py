"""A layer of a million inputs and a million outputs costs memory for its weights only."""

import sys
from pathlib import Path

import pytest
from processes import run_python

LIFE_OF_A_LAYER = """
import re, sys
from pathlib import Path
import torch
import torch_truly_sparse as tts

def status(key):  # in MB
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def live(size, nnz, path):
    generator = torch.Generator().manual_seed(0)
    layer = tts.TrulySparseLinear(size, size, nnz=nnz, generator=generator)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01, momentum=0.9)
    evolution = tts.SparseEvolution(layer, optimizer, generator=generator)
    x = torch.randn(2, size, requires_grad=True)
    layer(x).square().sum().backward()
    optimizer.step()
    record = evolution.step()
    assert record.pruned == record.regrown > 0.29 * nnz
    torch.save(layer.state_dict(), path)
    other = tts.TrulySparseLinear(size, size, nnz=nnz)
    other.load_state_dict(torch.load(path, weights_only=True))
    assert torch.equal(other.indices, layer.indices) and torch.equal(other.values, layer.values)

live(100, 50, sys.argv[1])  # what torch loads on first use is not the layer's
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
live(1_000_000, 5_000_000, sys.argv[1])
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_a_million_by_a_million_layer_lives_in_430_megabytes(tmp_path: Path) -> None:
    run = run_python("-c", LIFE_OF_A_LAYER, "layer.pt", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 430


LIFE_OF_A_NETWORK = """
import re
from pathlib import Path
import torch
import torch_truly_sparse as tts

def status(key):  # in bytes
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def live(size, nnz):
    generator = torch.Generator().manual_seed(0)
    layers = [tts.TrulySparseLinear(size, size, nnz=nnz, generator=generator) for _ in range(3)]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    evolution = tts.SparseEvolution(model, optimizer, generator=generator)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(2, size)).square().sum().backward()
        optimizer.step()
        evolution.step()

live(100, 50)  # what torch loads on first use is not the network's
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
live(20_000, 1_500_000)
print((status("VmHWM") - before) / 4_500_000)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_training_and_evolving_three_equal_layers_take_32_bytes_a_weight(
    tmp_path: Path,
) -> None:
    # 20 all the time: weight, gradient, momentum, two indices. Blocks of this size go back to the
    # system when they are freed, as the larger ones of larger networks do by default.
    environment = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    run = run_python("-c", LIFE_OF_A_NETWORK, cwd=tmp_path, environment=environment)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 32
