"""Models that are too large to exist densely: shapes first, then sparse, then content."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from oracles import all_same_bits, same_bits
from processes import run_python
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts


class Large(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 20)
        self.body = nn.Sequential(nn.Linear(20, 50), nn.BatchNorm1d(50), nn.Linear(50, 20))
        self.attention = nn.MultiheadAttention(20, 2)
        self.norm = nn.LayerNorm(20)
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        x = self.body(self.embed(x))
        return self.head(self.norm(self.attention(x, x, x)[0]))


def on_meta(make=Large) -> nn.Module:
    with torch.device("meta"):
        return make()


def converted(seed: int = 3, **how) -> nn.Module:
    how = {"density": 0.1, "exclude": ["head", "attention"], "generator": seeded(seed)} | how
    return tts.sparsify(on_meta(), **how)


@pytest.mark.parametrize("inplace", [False, True])
def test_a_model_of_shapes_gets_content_on_the_cpu(inplace):
    model = converted(inplace=inplace)
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == "cpu", name
        assert tensor.isfinite().all(), name
    assert model.body[0].nnz == 100
    assert (model.body[0].bias == 0).all()
    assert (model.norm.weight == 1).all()
    assert (model.body[1].running_var == 1).all()
    # As nn.Linear and nn.MultiheadAttention draw their own.
    assert 0 < model.head.weight.abs().max() <= 20**-0.5
    assert 0 < model.attention.in_proj_weight.abs().max() <= (6 / 80) ** 0.5
    assert (model.attention.out_proj.bias == 0).all()
    model(torch.tensor([1, 2, 3])).sum().backward()


def test_the_same_seed_gives_the_same_model_and_leaves_the_default_generator():
    before = torch.get_rng_state()
    one, same, other = converted(1), converted(1), converted(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert all_same_bits(one.state_dict(), same.state_dict())
    assert not same_bits(one.head.weight, other.head.weight)
    torch.manual_seed(5)
    one = converted(generator=None)
    torch.manual_seed(5)
    assert all_same_bits(one.state_dict(), converted(generator=None).state_dict())


def test_it_is_the_sparse_model_that_the_cpu_gives():
    model, expected = (
        converted(),
        tts.sparsify(Large(), density=0.1, exclude=["head", "attention"], generator=seeded()),
    )
    for layer in (0, 2):
        assert same_bits(model.body[layer].indices, expected.body[layer].indices)
        assert same_bits(model.body[layer].values, expected.body[layer].values)


def test_what_is_on_the_cpu_already_stays():
    model = on_meta()
    model.norm = nn.LayerNorm(20)
    nn.init.constant_(model.norm.weight, 3)
    sparse = tts.sparsify(model, density=0.1, exclude=["attention"], inplace=True)
    assert (sparse.norm.weight == 3).all()


class Unfilled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.layer = nn.Linear(4, 4)


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(2))
        self.layer = nn.Linear(4, 4)

    def reset_parameters(self):
        pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Unfilled, r"\(the model itself\): has no `reset_parameters` to fill scale"),
        (lambda: nn.Sequential(Unfilled()), "0: has no `reset_parameters` to fill scale"),
        (Buffered, "nothing is known to fill its buffer 'mask'"),
    ],
)
def test_what_nothing_can_fill_is_refused_by_name(make, reason):
    model = on_meta(make)
    with pytest.raises(ValueError, match=reason):
        tts.sparsify(model, density=0.5, inplace=True)
    assert not any(isinstance(module, tts.TrulySparseLinear) for module in model.modules())


@pytest.mark.parametrize("init", ["magnitude", "nonzero"])
def test_shapes_have_no_trained_weights(init):
    how = {"density": 0.1} if init == "magnitude" else {}
    with pytest.raises(ValueError, match=r"'body.0' is on the meta device and has none"):
        tts.sparsify(on_meta(), init=init, exclude=["attention"], **how)


PROGRAM = """
import re
from pathlib import Path
import torch
import torch_truly_sparse as tts
from torch import nn

def status(key):  # in MB
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def convert(size, distribution):
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 2 * size))
    model = tts.sparsify(model, density=1_000_000 / size**2, distribution=distribution)
    str(tts.summary(model))
    return model(torch.ones(1, size)).shape

convert(2000, "uniform")
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
for distribution in "uniform", "erdos_renyi", "fixed_fan_in":
    assert convert(500_000, distribution) == (1, 1_000_000)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads peak memory from /proc")
def test_a_model_of_3_terabytes_is_built_sparse_in_200_megabytes(tmp_path: Path) -> None:
    run = run_python("-c", PROGRAM, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < 200  # 99 measured
