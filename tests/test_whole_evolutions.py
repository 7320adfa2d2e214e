"""An evolution happens as a whole or not at all, whatever fails."""

from __future__ import annotations

import copy
import os
import signal
import warnings

import pytest
import torch
from oracles import all_same_bits
from small_layers import seeded
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import MaskedLinear, TrulySparseLinear
from torch_truly_sparse.evolution import interrupts, layer_step, sparse_evolution
from torch_truly_sparse.evolution.interrupts import uninterrupted


def network(kind=TrulySparseLinear) -> nn.Sequential:
    g = seeded(0)
    return nn.Sequential(
        kind(64, 128, nnz=4096, generator=g), nn.ReLU(), kind(128, 64, nnz=4096, generator=g)
    )


def trained(kind=TrulySparseLinear, optimizer_type=torch.optim.Adam, **options):
    model = network(kind)
    optimizer = optimizer_type(model.parameters(), lr=0.01)
    evolution = tts.SparseEvolution(model, optimizer, generator=seeded(1), **options)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(4, 64)).square().sum().backward()
        optimizer.step()
    return model, optimizer, evolution


def contents(model, optimizer):
    state = {
        f"{number} {key}": entry
        for number, entries in enumerate(optimizer.state.values())
        for key, entry in entries.items()
    }
    grads = {f"{name} grad": each.grad for name, each in model.named_parameters()}
    return copy.deepcopy({**model.state_dict(), **state, **grads})


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch) -> str:
    """Whether plans keep what they compute, as those of small networks do."""
    if request.param == "large":
        monkeypatch.setattr(sparse_evolution, "KEEP_UP_TO", 0)
    return request.param


@pytest.fixture
def after_rehearsal(size, monkeypatch):
    """Call a function before the given change of a weight, gradient or entry: 8 in all."""

    def call(change: int, function) -> None:
        holder, name = (layer_step, "move") if size == "large" else (TrulySparseLinear, "scatter_")
        original, calls = getattr(holder, name), iter(range(1000))

        def counting(*arguments):
            if next(calls) == change + (8 if size == "large" else 0):
                function()
            return original(*arguments)

        monkeypatch.setattr(holder, name, counting)

    return call


def test_a_small_network_evolves_as_a_large_one(monkeypatch) -> None:
    results = []
    for limit in (1 << 20, 0):
        monkeypatch.setattr(sparse_evolution, "KEEP_UP_TO", limit)
        for options in ({}, {"shrink": tts.rules.ImportancePrune(0.1)}):
            model, optimizer, evolution = trained(**options)
            for _ in range(3):
                evolution.step()
            results.append(contents(model, optimizer))
    assert all_same_bits(results[0], results[2])
    assert all_same_bits(results[1], results[3])


@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("kind", [TrulySparseLinear, MaskedLinear])
@pytest.mark.parametrize("error", [MemoryError, RuntimeError, OSError])
@pytest.mark.parametrize("call", range(8))
def test_a_move_that_fails_changes_nothing(kind, error, call, monkeypatch):
    """Each of two layers moves its weights, their gradient and two entries of Adam."""
    model, optimizer, evolution = trained(kind)
    before = contents(model, optimizer)
    calls = iter(range(1000))
    move = layer_step.move

    def failing(*arguments):
        if next(calls) == call:
            raise error("on purpose")
        return move(*arguments)

    monkeypatch.setattr(layer_step, "move", failing)
    with pytest.raises(error, match="on purpose"):
        evolution.step()
    assert all_same_bits(before, contents(model, optimizer))
    assert not evolution.history
    monkeypatch.undo()
    evolution.step()
    model(torch.ones(4, 64))


def test_what_fails_after_the_rehearsal_leaves_no_layer_that_computes_wrongly(after_rehearsal):
    model, _, evolution = trained()

    def fail() -> None:
        raise MemoryError("on purpose")

    after_rehearsal(5, fail)  # the second change of the second layer
    with pytest.raises(RuntimeError, match=r"broke off in layer '2' \(1 of 2 layers"):
        evolution.step()
    with pytest.raises(ValueError, match="seal"):
        model(torch.ones(4, 64))
    model.load_state_dict(network().state_dict())
    model(torch.ones(4, 64))


def test_a_quantised_state_is_refused_before_anything_changes(monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low_bit = pytest.importorskip("torchao.optim")
    from torch_truly_sparse.evolution import optimizer_state

    monkeypatch.setattr(optimizer_state, "_FRESH", {**optimizer_state._FRESH})
    tts.evolution.register_optimizer(low_bit.AdamW8bit, {"exp_avg": 0.0, "exp_avg_sq": 0.0})
    model = network()
    optimizer = low_bit.AdamW8bit(model.parameters(), lr=0.01)
    evolution = tts.SparseEvolution(model, optimizer, generator=seeded(1))
    optimizer.zero_grad()
    model(torch.ones(4, 64)).square().sum().backward()
    # What its compiled step would make, without compiling it.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["exp_avg"] = optimizer._new_buffer(parameter, True)
    assert type(optimizer.state[model[0].values]["exp_avg"]) is not torch.Tensor
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TypeError, match=r"'exp_avg' of AdamW8bit .* cannot follow"):
        evolution.step()
    assert all_same_bits(before, model.state_dict())


@pytest.fixture
def _default_signal():
    """What runs the tests may have told them to ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_default_signal")
def test_control_c_waits_until_all_layers_have_changed(after_rehearsal):
    model, _, evolution = trained()
    topologies = [copy.deepcopy(model[number].topology) for number in (0, 2)]
    after_rehearsal(0, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        evolution.step()
    for number, before in zip((0, 2), topologies, strict=True):
        assert model[number].topology != before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("_default_signal")
def test_signals_are_left_alone_in_other_threads_and_where_they_are_ignored(monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    with uninterrupted():
        assert signal.getsignal(signal.SIGINT) is not handler
    assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.setattr(interrupts.threading, "current_thread", lambda: None)
    with uninterrupted():
        assert signal.getsignal(signal.SIGINT) is handler
    monkeypatch.undo()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with uninterrupted():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


# Accumulation


def chosen(model, batches, seed=0, *, clear=False):
    """Evolve by gradient after one step, of one large batch or of several accumulated ones."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(
        model, optimizer, regrow="gradient", prune="magnitude", fraction=0.5
    )
    evolution.arm()
    for x, y in batches:
        if clear:
            optimizer.zero_grad(set_to_none=False)
        (model(x) * y).sum().backward()
    optimizer.step()
    evolution.step()
    return model.topology


@pytest.mark.parametrize("seed", range(20))
def test_passes_without_a_gradient_at_the_connections_count_for_growth(seed):
    """Sparse input and few connections: many passes have a gradient only at empty positions."""
    g = seeded(seed)
    layer = TrulySparseLinear(12, 3, nnz=4, generator=g)
    x = torch.randn(8, 12, generator=g) * (torch.rand(8, 12, generator=g) < 0.15)
    y = torch.randn(8, 3, generator=g)
    twin = copy.deepcopy(layer)
    whole = chosen(layer, [(x, y)])
    parts = chosen(twin, list(zip(x.split(1), y.split(1), strict=True)))
    assert whole == parts


def test_what_zero_grad_throws_away_does_not_count():
    g = seeded(3)
    layer = TrulySparseLinear(12, 3, nnz=4, generator=g)
    batches = [(torch.randn(4, 12, generator=g), torch.randn(4, 3, generator=g)) for _ in range(3)]
    twin = copy.deepcopy(layer)
    assert chosen(layer, batches, clear=True) == chosen(twin, batches[-1:])
