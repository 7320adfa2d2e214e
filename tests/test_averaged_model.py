"""Averages of weights belong to connections, whatever becomes of the topology."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from oracles import all_same_bits, same_bits
from small_layers import seeded
from torch import Tensor, nn
from torch.optim import swa_utils

import torch_truly_sparse as tts
from torch_truly_sparse import MaskedLinear, TrulySparseLinear
from torch_truly_sparse.nn import AveragedModel

KINDS = {
    "swa": {},
    "ema": {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)},
    "own": {"avg_fn": lambda average, current, n: 0.5 * (average + current)},
    "buffers": {"use_buffers": True},
}
each_average = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def network(kind: type = TrulySparseLinear) -> nn.Sequential:
    g = seeded(0)
    return nn.Sequential(kind(9, 12, nnz=50, generator=g), nn.ReLU(), nn.Linear(12, 3))


def train(model: nn.Module, *averages: nn.Module, fraction: float, steps: int = 12) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    evolution = tts.SparseEvolution(
        model, optimizer, fraction=fraction, every=3, generator=seeded(4)
    )
    g = seeded(9)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 9, generator=g)).square().sum().div(8).backward()
        optimizer.step()
        for average in averages:
            average.update_parameters(model)
    evolution.remove()


@each_average
def test_without_evolution_it_is_that_of_torch(options):
    model = network()
    ours, theirs = AveragedModel(model, **options), swa_utils.AveragedModel(model, **options)
    train(model, ours, theirs, fraction=0.0)
    assert all_same_bits(ours.state_dict(), theirs.state_dict())


# Not with `use_buffers`, which averages the integers of `indices`, too, and may leave them as is.
@pytest.mark.parametrize("options", [KINDS[name] for name in ("swa", "ema", "own")], ids=str)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_that_of_torch_is_warned_of_once_the_topology_evolves(options, device, recwarn):
    model = network()
    ours, theirs = (
        AveragedModel(model, **options),
        swa_utils.AveragedModel(model, device, **options),
    )
    train(model, ours, theirs, fraction=0.0)
    ours(torch.ones(2, 9))
    theirs(torch.ones(2, 9))
    train(model, ours, theirs, fraction=0.5)
    ours(torch.ones(2, 9))
    model(torch.ones(2, 9))
    assert not recwarn.list
    with pytest.warns(UserWarning, match=r"use tts\.nn\.AveragedModel"):
        theirs(torch.ones(2, 9))
    theirs(torch.ones(2, 9))
    assert not recwarn.list  # said once


@pytest.mark.parametrize(
    "change",
    [
        lambda copied, other: copied.load_state_dict(other.state_dict()),
        lambda copied, other: copied.load_state_dict(other.state_dict(), assign=True),
        lambda copied, other: setattr(copied, "indices", other.indices),
        lambda copied, other: copied.replace_topology(other.topology),
        lambda copied, other: copied.indices.copy_(copied.indices.clone()),
        lambda copied, other: copied.values.data.zero_(),
    ],
)
def test_what_else_befalls_a_copy_is_not_warned_of(change, recwarn):
    layer, other = (TrulySparseLinear(9, 12, nnz=50, generator=seeded(s)) for s in (0, 1))
    copied = copy.deepcopy(layer)
    change(copied, other)
    copied(torch.ones(2, 9))
    torch.func.functional_call(copy.deepcopy(layer), other.state_dict(), (torch.ones(2, 9),))
    assert not recwarn.list


def test_a_copy_that_moves_keeps_nothing_of_where_it_was():
    layer = copy.deepcopy(TrulySparseLinear(9, 12, nnz=50))
    before = weakref.ref(layer.indices)
    layer.to("meta")
    gc.collect()
    assert before() is None


def test_averages_follow_their_connections():
    model = network()
    average = AveragedModel(model)
    average.update_parameters(model)
    before = model[0].to_dense().weight.detach()
    model[0].reset_topology(generator=seeded(8))
    kept = before[model[0].indices[0].long(), model[0].indices[1].long()]
    average.update_parameters(model)
    now = model[0].values.detach()
    assert 0 < (kept != 0).sum() < len(kept)
    torch.testing.assert_close(
        average.module[0].values.detach(), torch.where(kept != 0, (kept + now) / 2, now)
    )
    assert torch.equal(average.module[0].indices, model[0].indices)
    x = torch.randn(4, 9)
    torch.testing.assert_close(
        average.module[0](x), average.module[0].to_dense()(x), msg="the derived orders follow, too"
    )


@pytest.mark.parametrize("options", [KINDS[name] for name in ("swa", "ema", "own")], ids=str)
def test_both_twins_have_the_same_average_under_evolution(options):
    averages = []
    for kind in TrulySparseLinear, MaskedLinear:
        torch.manual_seed(0)
        model = network(kind)
        average = AveragedModel(model, **options)
        train(model, average, fraction=0.3)
        averages.append(average.module[0])
    sparse, masked = averages
    assert torch.equal(sparse.indices, masked.indices)
    torch.testing.assert_close(sparse.values, masked.gather(masked.weight))


def test_it_resumes_from_its_state():
    torch.manual_seed(0)
    model = network()
    average = AveragedModel(model)
    train(model, average, fraction=0.3)
    torch.manual_seed(5)
    twin = AveragedModel(network())
    twin.load_state_dict(copy.deepcopy(average.state_dict()))
    twin_model = copy.deepcopy(model)
    train(model, average, fraction=0.3)
    train(twin_model, twin, fraction=0.3)
    assert all_same_bits(average.state_dict(), twin.state_dict())


def test_a_change_of_size_is_followed():
    model = network()
    average = AveragedModel(model)
    average.update_parameters(model)
    values = average.module[0].values
    for nnz in 70, 20, 0, 30:
        model[0].resize_topology(tts.Topology.random(12, 9, nnz=nnz, generator=seeded(nnz)))
        model[0].reset_parameters()
        average.update_parameters(model)
        assert average.module[0].values is values
        assert average.module[0].nnz == nnz
        assert torch.equal(average.module[0].indices, model[0].indices)


def test_other_models_are_refused_and_change_nothing():
    average = AveragedModel(network())
    average.update_parameters(network())
    before: dict[str, Tensor] = copy.deepcopy(average.state_dict())
    for other in nn.Sequential(nn.Linear(9, 12)), nn.Sequential(TrulySparseLinear(9, 9, nnz=50)):
        with pytest.raises(ValueError, match="must have the sparse layers of the averaged model"):
            average.update_parameters(other)
    assert all_same_bits(average.state_dict(), before)


def test_update_bn_and_evaluation():
    model = nn.Sequential(TrulySparseLinear(9, 12, nnz=50), nn.BatchNorm1d(12))
    average = AveragedModel(model)
    average.update_parameters(model)
    swa_utils.update_bn([torch.randn(8, 9) for _ in range(3)], average)
    assert not same_bits(average.module[1].running_mean, model[1].running_mean)
    average.eval()(torch.randn(2, 9))
