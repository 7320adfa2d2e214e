"""A dense checkpoint in the positions of a sparse model."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import all_same_bits
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts


def dense(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Sequential(nn.Linear(8, 7, bias=False))
    )


def sparse() -> nn.Module:
    return tts.sparsify(dense(1), density=0.4, generator=seeded())


def test_each_sparse_layer_takes_the_weights_at_its_positions():
    source, model = dense(), sparse()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    values = model[0].values
    missing, unexpected = tts.convert.load_dense_state_dict(model, source.state_dict())
    assert missing == unexpected == []
    assert model[0].values is values
    for name in "0", "2.0":
        layer, weight = model.get_submodule(name), source.get_submodule(name).weight
        assert torch.equal(layer.indices, before[f"{name}.indices"])
        mask = torch.zeros(weight.shape, dtype=torch.bool)
        mask[layer.indices[0].long(), layer.indices[1].long()] = True
        assert torch.equal(layer.weight.to_dense(), torch.where(mask, weight, 0))
    assert torch.equal(model[0].bias, source[0].bias)
    assert torch.equal(model[1].running_mean, source[1].running_mean)


def test_all_of_the_largest_weights_come_back():
    source = dense()
    model = tts.sparsify(source, density=0.4, init="magnitude")
    expected = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model[0].values.zero_()
    tts.convert.load_dense_state_dict(model, source.state_dict())
    assert all_same_bits(model.state_dict(), expected)


def test_a_single_layer_has_no_prefix():
    source = nn.Linear(6, 5)
    layer = tts.sparsify(nn.Linear(6, 5), density=0.5)
    tts.convert.load_dense_state_dict(layer, source.state_dict())
    rows, columns = layer.indices.long()
    assert torch.equal(layer.values, source.weight[rows, columns])


def test_another_dtype_is_converted_as_load_state_dict_does():
    layer = tts.sparsify(nn.Linear(6, 5), density=0.5)
    tts.convert.load_dense_state_dict(layer, nn.Linear(6, 5).bfloat16().state_dict())
    assert layer.values.dtype == torch.float32


def test_a_layer_saved_in_sparse_form_brings_its_own_topology():
    source = tts.sparsify(dense(), density=0.2, exclude=["2"])
    model = sparse()
    tts.convert.load_dense_state_dict(model, source.state_dict())
    assert torch.equal(model[0].indices, source[0].indices)
    assert torch.equal(model[0].values, source[0].values)


def broken(change) -> dict[str, object]:
    state = dense().state_dict()
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("2.0.weight"), "missing: 2.0.weight"),
        (lambda s: s.pop("0.bias"), "missing: 0.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "unexpected: extra"),
        (
            lambda s: s.update({"0.weight": torch.ones(9, 8)}),
            r"`0.weight` must have shape \(8, 9\), got \(9, 8\)",
        ),
        (
            lambda s: s.update({"1.weight": torch.ones(9)}),
            r"`1.weight` must have shape \(8,\), got \(9,\)",
        ),
        (lambda s: s.update({"0.weight": [1.0]}), "`0.weight` must be a torch.Tensor, got list"),
        (
            lambda s: s.update({"0.weight": torch.ones(8, 9, device="meta")}),
            "`0.weight` is on the meta device and has no content",
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(change, message):
    model = sparse()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match=message):
        tts.convert.load_dense_state_dict(model, broken(change))
    assert all_same_bits(model.state_dict(), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("2.0.values"), "`2.0.values` is missing: values mean nothing without"),
        (lambda s: s["2.0.indices"].fill_(0), r"`2.0.indices`: .*"),
        (
            lambda s: s.update({"2.0.values": torch.ones(3)}),
            r"`2.0.values` must have shape \(22,\)",
        ),
    ],
)
def test_entries_in_sparse_form_that_do_not_fit_change_nothing(change, message):
    model, state = sparse(), copy.deepcopy(sparse().state_dict())
    before = copy.deepcopy(model.state_dict())
    change(state)
    with pytest.raises(RuntimeError, match=message):
        tts.convert.load_dense_state_dict(model, state)
    assert all_same_bits(model.state_dict(), before)


def test_without_strictness_what_is_missing_stays():
    model = sparse()
    before = model[2][0].values.clone()
    state = broken(lambda s: (s.pop("2.0.weight"), s.update(extra=torch.ones(1))))
    result = tts.convert.load_dense_state_dict(model, state, strict=False)
    assert result.missing_keys == ["2.0.weight"]
    assert result.unexpected_keys == ["extra"]
    assert torch.equal(model[2][0].values, before)
    assert torch.equal(model[0].bias, dense()[0].bias)
    wrong = broken(lambda s: s.update({"0.weight": torch.ones(3, 3)}))
    with pytest.raises(RuntimeError, match=r"must have shape"):
        tts.convert.load_dense_state_dict(model, wrong, strict=False)


def test_wrong_types():
    with pytest.raises(TypeError, match=r"`model` must be an nn.Module"):
        tts.convert.load_dense_state_dict({}, {})
    with pytest.raises(TypeError, match=r"`state_dict` must be a dictionary, got Linear"):
        tts.convert.load_dense_state_dict(nn.Linear(1, 1), nn.Linear(1, 1))
