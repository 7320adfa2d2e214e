"""Functions that are called after each evolution, with the connections that went and came."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd, train_step

import torch_truly_sparse as tts


def positions_of(model: Any) -> dict[str, set[int]]:
    layers = {name: m for name, m in model.named_modules() if isinstance(m, tts.nn.SparseLayer)}
    return {name: set(layer.topology.positions().tolist()) for name, layer in layers.items()}


def watched(layer_type: type[Any] = tts.TrulySparseLinear, **settings: Any) -> Any:
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, generator=seeded(), **settings)
    train_step(model, optimizer)
    return model, optimizer, evolution


@both_twins
@pytest.mark.parametrize("regrow", ["random", "gradient"])
def test_a_hook_gets_what_went_and_came(layer_type: type[Any], regrow: str) -> None:
    model, optimizer, evolution = watched(layer_type, regrow=regrow, every=1)
    calls: list[Any] = []
    evolution.register_hook(lambda record, changes: calls.append((record, changes)))
    for seed in range(3):
        before = positions_of(model)
        train_step(model, optimizer, seed + 1)
        record, changes = calls[-1]
        assert record is evolution.history[-1]
        assert changes.keys() == before.keys()
        for layer, (name, change) in zip(record.layers, changes.items(), strict=True):
            dropped, grown = change.dropped.tolist(), change.grown.tolist()
            assert (len(dropped), len(grown)) == (layer.pruned, layer.regrown)
            assert dropped == sorted(dropped)
            assert grown == sorted(grown)
            assert set(dropped) <= before[name]
            assert positions_of(model)[name] == (before[name] - set(dropped)) | set(grown)
    assert len(calls) == 3


def test_layers_that_change_their_size_are_told_too() -> None:
    model, _, evolution = watched(shrink=tts.rules.ImportancePrune(0.1))
    calls: list[Any] = []
    evolution.register_hook(lambda record, changes: calls.append(changes))
    before = positions_of(model)
    evolution.step()
    for name, (dropped, grown) in calls[0].items():
        assert positions_of(model)[name] == (before[name] - {*dropped.tolist()}) | {*grown.tolist()}


def test_hooks_change_nothing_of_the_evolution() -> None:
    results = []
    for hooked in False, True:
        model, _, evolution = watched()
        if hooked:
            evolution.register_hook(lambda record, changes: changes["0"].grown.zero_())
        evolution.step()
        evolution.step()
        results.append(model.state_dict())
    for a, b in zip(results[0].values(), results[1].values(), strict=True):
        assert torch.equal(a, b)


def test_hooks_are_called_in_order_until_they_are_removed() -> None:
    _, _, evolution = watched()
    calls: list[str] = []
    first = evolution.register_hook(lambda record, changes: calls.append("first"))
    evolution.register_hook(lambda record, changes: calls.append("second"))
    evolution.step()
    first.remove()
    evolution.step()
    assert calls == ["first", "second", "second"]


def test_copies_have_no_hooks() -> None:
    model, optimizer, evolution = watched()
    calls: list[Any] = []
    evolution.register_hook(lambda record, changes: calls.append(record))
    _, _, other = copy.deepcopy((model, optimizer, evolution))
    other.step()
    assert not calls
    other.register_hook(lambda record, changes: calls.append(record))
    other.step()
    assert len(calls) == 1


def test_an_error_of_a_hook_comes_after_the_evolution() -> None:
    model, _, evolution = watched()
    before = positions_of(model)

    def fail(record: Any, changes: Any) -> None:
        raise OSError("the disk is full")

    evolution.register_hook(fail)
    with pytest.raises(OSError, match="the disk is full"):
        evolution.step()
    assert positions_of(model) != before
    assert len(evolution.history) == 1
    model(torch.ones(2, 12))


def test_what_cannot_be_called_is_refused() -> None:
    _, _, evolution = watched()
    with pytest.raises(TypeError, match="`hook` must be callable, got str"):
        evolution.register_hook("watch")
