"""Numbers of NumPy and of tensors stand for Python's; what is no number is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import rules, schedules
from torch_truly_sparse._arguments import as_float, as_int

FLOATS = [np.float32, np.float64, torch.tensor]
INTS = [np.int32, np.int64, torch.tensor]


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def same(first: object, second: object) -> bool:
    return repr(first) == repr(second)


@pytest.mark.parametrize("number", FLOATS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "make",
    [
        lambda x: tts.TrulySparseLinear(8, 16, density=x).nnz,
        lambda x: tts.TrulySparseLinear(8, 16, epsilon=x).nnz,
        lambda x: tts.TrulySparseLinear.from_dense(nn.Linear(8, 16), density=x).nnz,
        lambda x: tts.sparsify(network(), density=x)[0].nnz,
        lambda x: tts.sparsify(network(), epsilon=x)[0].nnz,
        lambda x: tts.sparsify(network(), density=x, distribution="erdos_renyi")[0].nnz,
        lambda x: tts.sparsify(network(), density=x, distribution="fixed_fan_in")[0].nnz,
        lambda x: tts.sparsify(network(), density=0.5, per_layer={"0": x})[0].nnz,
        tts.topology.Uniform,
        tts.topology.FixedFanIn,
        rules.MagnitudeGradientPrune,
        rules.CandidateGradientRegrow,
        lambda x: rules.CannistraciHebbRegrow(candidates=x),
        rules.MomentumRegrow,
        rules.ImportancePrune,
        lambda x: rules.GradualMagnitude(x, 10, initial_density=x),
        lambda x: schedules.ByEpoch(x, 5),
        lambda x: schedules.Cosine(x, end=9),
        lambda x: schedules.Linear(x, end=9),
    ],
)
@pytest.mark.filterwarnings("ignore:layers with fewer connections")
def test_a_float(make, number):
    assert same(make(number(0.25)), make(0.25))  # exact in every precision


@pytest.mark.parametrize("number", INTS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "make",
    [
        lambda n: tts.TrulySparseLinear(n, n, nnz=n),
        lambda n: schedules.Cosine(0.3, end=n),
        lambda n: schedules.Linear(0.3, end=n),
        lambda n: schedules.ByEpoch(schedules.Linear(0.3, end=9), n),
        lambda n: rules.ImportancePrune(every=n, start=n),
        lambda n: rules.MomentumRegrow(steps=n),
        lambda n: rules.GradualMagnitude(0.1, end=n, start=n - 1),
        lambda n: tts.nn.AllReLU(layer_index=n),
        lambda n: tts.summary(nn.Linear(2, 2), batch=n).batch,
        lambda n: (
            tts.distributed.merge_topologies([tts.TrulySparseLinear(9, 9, nnz=12)] * 2, nnz=n).nnz
        ),
    ],
)
def test_an_int(make, number):
    assert same(make(number(5)), make(5))


def test_the_stateless_form():
    layer = tts.TrulySparseLinear(5, 4, nnz=6)
    x = torch.randn(2, 5)
    y = tts.functional.sparse_linear(
        x, tts.Topology.from_indices(layer.indices, (np.int64(4), 5)), layer.values, layer.bias
    )
    assert torch.equal(y, layer(x))


@pytest.mark.parametrize("number", FLOATS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scheduled", [False, True])
def test_an_evolution_that_is_saved(number, scheduled, tmp_path):
    """What a schedule returns goes into the history, which a checkpoint must be able to hold."""
    model = tts.sparsify(network(), density=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fraction = (lambda step: number(0.25)) if scheduled else number(0.25)
    evolution = tts.SparseEvolution(model, optimizer, fraction=fraction, every=np.int64(2))
    assert evolution.step().fraction == 0.25
    path = tts.checkpoint.save(tmp_path / "run_1.pt", evolution=evolution, keep=np.int64(1))
    tts.checkpoint.resume(path, evolution=evolution)
    assert evolution.history[0].fraction == 0.25


@pytest.mark.parametrize(
    "wrong", ["0.1", True, [0.1], 1j, np.ones(3), torch.ones(3), object()], ids=repr
)
def test_what_is_no_number(wrong):
    message = f"`density` must be a number, got {type(wrong).__name__}"
    for call in (
        lambda: as_float(wrong, "density"),
        lambda: tts.sparsify(network(), density=wrong),
        lambda: tts.TrulySparseLinear(8, 16, density=wrong),
        lambda: tts.topology.ErdosRenyi(density=wrong),
    ):
        with pytest.raises(TypeError, match=message):
            call()


@pytest.mark.parametrize("wrong", ["1", True, 1.0, np.float32(1), torch.ones(3), None], ids=repr)
def test_what_is_no_int(wrong):
    with pytest.raises(TypeError, match=f"`nnz` must be an int, got {type(wrong).__name__}"):
        as_int(wrong, "nnz")


@pytest.mark.parametrize("wrong", ["0.1", True, [0.1], torch.ones(3), None], ids=repr)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("gradient_weight", rules.MagnitudeGradientPrune),
        ("candidates", rules.CandidateGradientRegrow),
        ("candidates", lambda value: rules.CannistraciHebbRegrow(candidates=value)),
        ("momentum", rules.MomentumRegrow),
        ("percentile", rules.ImportancePrune),
        ("final_density", lambda x: rules.GradualMagnitude(x, 10)),
        ("initial_density", lambda x: rules.GradualMagnitude(0.1, 10, x)),
        ("fraction", schedules.Constant),
    ],
)
def test_a_setting_of_a_rule_that_is_no_number(wrong, name, make):
    with pytest.raises(TypeError, match=f"`{name}` must be a number, got {type(wrong).__name__}"):
        make(wrong)


@pytest.mark.parametrize("wrong", ["5", True, 5.0, None], ids=repr)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("start", lambda n: rules.GradualMagnitude(0.1, 10, start=n)),
        ("end", lambda n: rules.GradualMagnitude(0.1, n)),
        ("every", lambda n: rules.ImportancePrune(every=n)),
        ("steps", lambda n: rules.MomentumRegrow(steps=n)),
        ("steps_per_epoch", lambda n: schedules.ByEpoch(schedules.Constant(0.3), n)),
    ],
)
def test_a_setting_of_a_rule_that_is_no_int(wrong, name, make):
    with pytest.raises(TypeError, match=f"`{name}` must be an int, got {type(wrong).__name__}"):
        make(wrong)


def test_a_schedule_that_is_none():
    with pytest.raises(TypeError, match="`schedule` must be a number or a schedule, got None"):
        schedules.ByEpoch(None, 5)
