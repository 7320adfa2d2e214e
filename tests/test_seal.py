"""Indices and their seal: whoever changes one without the other is noticed."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from oracles import all_same_bits
from small_layers import seeded
from torch import Tensor, nn
from torch.optim import swa_utils

import torch_truly_sparse as tts
from torch_truly_sparse import Topology, TrulySparseLinear
from torch_truly_sparse.convert import load_dense_state_dict
from torch_truly_sparse.nn import AveragedModel, StateDictError, check_state_dict
from torch_truly_sparse.topology import seal_of, sealed_shape

WIDE = 5_000


def layer_of(in_features: int = WIDE, out_features: int = 30, seed: int = 0) -> TrulySparseLinear:
    return TrulySparseLinear(in_features, out_features, nnz=400, generator=seeded(seed))


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 2**31 + 5), (2**31 + 5, 3)])
def test_a_seal_says_the_shape(shape):
    topology = Topology.from_indices(torch.zeros(2, min(1, shape[0]), dtype=torch.int64), shape)
    assert sealed_shape(seal_of(topology)) == shape


def test_equal_topologies_have_equal_seals_and_others_have_others():
    topologies = [Topology.random(20, 30, nnz=50, generator=seeded(seed)) for seed in range(30)]
    seals = {tuple(seal_of(topology).tolist()) for topology in topologies}
    assert len(seals) == 30
    assert torch.equal(seal_of(copy.deepcopy(topologies[0])), seal_of(topologies[0]))


# States of other models


def refuse(model: nn.Module, state: dict[str, Tensor], text: str) -> None:
    before = copy.deepcopy(model.state_dict())
    ways = (
        lambda: model.load_state_dict(state),
        lambda: model.load_state_dict(state, assign=True),
        lambda: model.load_state_dict(state, strict=False),
        lambda: check_state_dict(model, state),
        lambda: load_dense_state_dict(model, state),
    )
    for way in ways:
        with pytest.raises((StateDictError, RuntimeError, ValueError), match=text):
            way()
        assert all_same_bits(before, model.state_dict())


def test_a_state_of_a_narrower_matrix_is_refused():
    """Its indices all lie within the wider matrix, and its values are as many."""
    refuse(
        layer_of(5966),
        layer_of(2000).state_dict(),
        r"matrix of shape \(30, 2000\) .* not \(30, 5966\)",
    )


def test_a_state_of_a_model_with_fewer_units_is_refused():
    refuse(layer_of(90, 40), layer_of(90, 30).state_dict(), r"matrix of shape \(30, 90\)")


@pytest.mark.parametrize(
    "seal", [torch.zeros(192), torch.zeros(5, dtype=torch.int8)], ids=["floats", "short"]
)
def test_what_is_no_seal_is_refused(seal):
    state = layer_of().state_dict()
    refuse(layer_of(), {**state, "seal": seal}, "is no seal")


def test_a_state_whose_indices_were_rounded_is_refused():
    state = {name: entry.clone() for name, entry in layer_of().state_dict().items()}
    state["indices"] = state["indices"].clone()
    state["indices"][1, -1] -= 1
    topology = Topology.from_indices(state["indices"], (30, WIDE))  # a valid one
    assert topology.nnz == 400
    refuse(layer_of(), state, "changed since it was saved")


def test_the_mean_of_states_of_one_topology_is_loaded():
    layer, twin = layer_of(), layer_of()
    twin.values.data.mul_(3)
    mean = {}
    for name, entry in layer.state_dict().items():
        both = torch.stack([entry, twin.state_dict()[name]])
        mean[name] = both.double().mean(dim=0).to(entry.dtype)
    other = layer_of(seed=3)
    other.load_state_dict(mean)
    torch.testing.assert_close(other.values, 2 * layer.values)
    assert torch.equal(other.indices, layer.indices)
    assert torch.equal(other.seal, layer.seal)


# What was saved before there were seals


def test_an_old_state_is_loaded_strictly():
    state = layer_of().state_dict()
    del state["seal"]
    layer = layer_of(seed=1)
    assert layer.load_state_dict(state) == ([], [])
    assert all_same_bits(layer.state_dict(), layer_of().state_dict())
    with torch.device("meta"):
        empty = layer_of(seed=1)
    assert empty.load_state_dict(state, assign=True) == ([], [])
    torch.testing.assert_close(empty(torch.ones(1, WIDE)), layer(torch.ones(1, WIDE)))


def test_an_old_state_with_indices_beyond_the_matrix_is_still_refused():
    state = layer_of(5966).state_dict()
    del state["seal"]
    with pytest.raises(ValueError, match="input unit is outside"):
        layer_of(2000).load_state_dict(state)


def test_an_old_pickle_gets_a_seal():
    layer = layer_of()
    old = copy.deepcopy(layer)
    del old._buffers["seal"]
    again = pickle.loads(pickle.dumps(old))
    assert all_same_bits(again.state_dict(), layer.state_dict())
    again(torch.ones(1, WIDE))


# Averages over buffers


def ema_of_everything(average: nn.Module, model: nn.Module, decay: float = 0.9) -> None:
    """What libraries do that treat every entry of a state as a number."""
    with torch.no_grad():
        for mean, entry in zip(
            average.state_dict().values(), model.state_dict().values(), strict=True
        ):
            mean.copy_(decay * mean + (1 - decay) * entry)


def steps(model: nn.Module, after: object, *, count: int = 6, fraction: float = 0.0) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(
        model, optimizer, fraction=fraction, every=2, generator=seeded(4)
    )
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.ones(2, WIDE)).square().sum().backward()
        optimizer.step()
        after()
    evolution.remove()


@pytest.mark.parametrize("fraction", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["torch", "own"])
def test_an_average_that_rounds_the_indices_is_refused_at_its_next_use(kind, fraction):
    model = layer_of()
    if kind == "torch":
        ema = swa_utils.get_ema_multi_avg_fn(0.9)
        average = swa_utils.AveragedModel(model, multi_avg_fn=ema, use_buffers=True)
        layer = average.module
        steps(model, lambda: average.update_parameters(model), fraction=fraction)
    else:
        layer = copy.deepcopy(model)
        steps(model, lambda: ema_of_everything(layer, model), fraction=fraction)
    assert not torch.equal(layer.indices, model.indices)  # else the test says nothing
    for use in (
        lambda: layer(torch.ones(2, WIDE)),
        lambda: layer.topology,
        lambda: layer.weight.to_dense(),
    ):
        with pytest.raises(ValueError, match=r"tts\.nn\.AveragedModel"):
            use()


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99, 0.999, 0.9999])
def test_equal_seals_keep_their_signs_in_every_average(decay):
    """A fixed topology whose indices happen to be averaged exactly is not refused."""
    seal = layer_of().seal
    ema, mean = seal.clone(), seal.clone()
    for number in range(1, 300):
        ema.copy_(ema * decay + seal * (1 - decay))
        mean.copy_(mean + (seal - mean) / (number + 1))
    assert torch.equal(ema.sign(), seal.sign())
    assert torch.equal(mean.sign(), seal.sign())
    assert torch.equal(sum([seal] * 18).sign(), seal.sign())


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_our_average_with_buffers_leaves_the_topology_alone(fraction):
    model = nn.Sequential(layer_of(), nn.BatchNorm1d(30))
    ema = swa_utils.get_ema_multi_avg_fn(0.9)
    average = AveragedModel(model, multi_avg_fn=ema, use_buffers=True)
    steps(model, lambda: average.update_parameters(model), fraction=fraction)
    assert torch.equal(average.module[0].indices, model[0].indices)
    assert not torch.equal(average.module[1].running_mean, model[1].running_mean)
    average.eval()
    average(torch.ones(2, WIDE))
