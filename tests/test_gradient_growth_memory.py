"""Growth by gradient takes memory for the connections, never for a dense gradient."""

import sys
from pathlib import Path

import pytest
from processes import run_python

GROWTH_BY_GRADIENT = """
import re, sys
from pathlib import Path
import torch
import torch_truly_sparse as tts
torch.manual_seed(0)

def status(key):  # in MB
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def grow(size, nnz, regrow):
    layer = tts.TrulySparseLinear(size, size, nnz=nnz)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    evolution = tts.SparseEvolution(layer, optimizer, regrow=regrow)
    evolution.arm()
    layer(torch.randn(2, size)).square().sum().backward()
    optimizer.step()
    assert evolution.step().regrown > 0.29 * nnz

for regrow in ("gradient", "candidate_gradient"):
    grow(100, 50, regrow)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
grow(10_000, 20_000, "gradient")
print(status("VmHWM") - before)
Path("/proc/self/clear_refs").write_text("5")
grow(1_000_000, 200_000, "candidate_gradient")
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_growth_by_gradient_makes_no_dense_gradient(tmp_path: Path) -> None:
    run = run_python("-c", GROWTH_BY_GRADIENT, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    exact, candidates = map(float, run.stdout.split())
    assert exact < 40  # 10,000 x 10,000: a dense gradient would take 400
    assert candidates < 200  # a million x a million: activations 32, weights and orders the rest
