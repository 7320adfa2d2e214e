"""`tts.optim`: weights that are updated within their backward pass."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import seeded
from processes import run_python
from several_ranks import needs_gloo, on_ranks
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import torch_truly_sparse as tts

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.01, "amsgrad": True, "eps": 1e-3}),
]
each_setting = pytest.mark.parametrize(
    ("kind", "settings"), SETTINGS, ids=[f"{k}-{'-'.join(s)}" for k, s in SETTINGS]
)
each_kind = pytest.mark.parametrize("kind", ["SGD", "AdamW"])
MOMENTUM = {"SGD": {"momentum": 0.9}, "AdamW": {}}


def network(dtype: torch.dtype = torch.float64, scale: int = 1) -> nn.Sequential:
    generator = seeded()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            tts.TrulySparseLinear(
                50 * scale, 40 * scale, density=0.2, generator=generator, dtype=dtype
            ),
            nn.ReLU(),
            tts.TrulySparseLinear(
                40 * scale, 30 * scale, density=0.2, generator=generator, dtype=dtype
            ),
            nn.ReLU(),
            nn.Linear(30 * scale, 3, dtype=dtype),
        )


def batches(model: nn.Sequential, batch: int, count: int) -> list[tuple[Tensor, Tensor]]:
    generator = seeded(1)
    first = model[0]
    return [
        (
            torch.randn(batch, first.in_features, generator=generator, dtype=first.values.dtype),
            torch.randint(3, (batch,), generator=generator),
        )
        for _ in range(count)
    ]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, data: tuple[Tensor, Tensor]) -> None:
    optimizer.zero_grad()
    cross_entropy(model(data[0]), data[1]).backward()
    optimizer.step()


def twins(kind: str, *, scale: int = 1, **settings: Any) -> list[Any]:
    """(model, optimizer) of torch, and the same of ours."""
    pairs = []
    for module in torch.optim, tts.optim:
        model = network(scale=scale)
        pairs.append((model, getattr(module, kind)(model.parameters(), **settings)))
    return pairs


def assert_alike(theirs: Any, ours: Any) -> None:
    """The weights agree to rounding, and so does every entry of the state."""
    for p, q in zip(theirs[0].parameters(), ours[0].parameters(), strict=True):
        torch.testing.assert_close(q, p)
        expected, actual = theirs[1].state[p], ours[1].state[q]
        assert expected.keys() == actual.keys()
        for key in expected:
            torch.testing.assert_close(actual[key], expected[key], check_dtype=key != "step")


# The same numbers as torch's optimizers


@each_setting
@pytest.mark.parametrize("batch", [1, 2, 16, 17, 100])
def test_the_weights_are_those_of_torch(kind: str, settings: dict[str, Any], batch: int) -> None:
    theirs, ours = twins(kind, **settings)
    for data in batches(ours[0], batch, 5):
        step(*theirs, data)
        step(*ours, data)
        assert ours[0][0].values.grad is None
        assert ours[0][2].values.grad is None
    assert_alike(theirs, ours)


@each_kind
def test_a_network_whose_work_is_split(kind: str) -> None:
    theirs, ours = twins(kind, scale=20, lr=0.01)
    for data in batches(ours[0], 70, 2):
        step(*theirs, data)
        step(*ours, data)
    assert_alike(theirs, ours)


@each_setting
def test_an_evolving_network_follows(kind: str, settings: dict[str, Any]) -> None:
    theirs, ours = twins(kind, **settings)
    for model, optimizer in theirs, ours:
        tts.SET(model, optimizer, every=2, generator=seeded(3))
        for data in batches(model, 8, 7):
            step(model, optimizer, data)
    assert torch.equal(theirs[0][0].indices, ours[0][0].indices)
    assert_alike(theirs, ours)


@each_kind
def test_groups_have_settings_of_their_own(kind: str) -> None:
    pairs = []
    for module in torch.optim, tts.optim:
        model = network()
        groups = [
            {"params": model[0].parameters(), "lr": 0.3, "weight_decay": 0.1},
            {"params": model[2].parameters()},
        ]
        optimizer = getattr(module, kind)(groups, lr=0.01, **MOMENTUM[kind])
        optimizer.add_param_group({"params": model[4].parameters(), "lr": 0.05})
        for data in batches(model, 8, 4):
            step(model, optimizer, data)
        pairs.append((model, optimizer))
    assert_alike(*pairs)


@each_kind
def test_a_scheduler_sets_the_rate_of_the_next_backward(kind: str) -> None:
    pairs = twins(kind, lr=0.1)
    for model, optimizer in pairs:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        for data in batches(model, 8, 4):
            step(model, optimizer, data)
            scheduler.step()
    assert_alike(*pairs)


@each_kind
def test_the_rate_may_be_a_tensor(kind: str) -> None:
    pairs = twins(kind, lr=torch.tensor(0.1))
    for model, optimizer in pairs:
        for data in batches(model, 8, 2):
            step(model, optimizer, data)
    assert_alike(*pairs)


@each_kind
@pytest.mark.parametrize("maximize", [False, True])
def test_gradients_are_clipped_by_value(kind: str, maximize: bool) -> None:
    limit = 1e-3  # of most gradients
    theirs = network()
    optimizer = getattr(torch.optim, kind)(theirs.parameters(), lr=0.1, maximize=maximize)
    ours = network()
    clipping = getattr(tts.optim, kind)(
        ours.parameters(), lr=0.1, maximize=maximize, clip_value=torch.tensor(limit)
    )
    for data in batches(ours, 8, 4):
        optimizer.zero_grad()
        cross_entropy(theirs(data[0]), data[1]).backward()
        before = [p.grad.abs().max() for p in theirs.parameters()]
        assert min(before) > limit
        nn.utils.clip_grad_value_(theirs.parameters(), limit)
        optimizer.step()
        step(ours, clipping, data)
    assert_alike((theirs, optimizer), (ours, clipping))


def test_clipping_lets_nan_through() -> None:
    layer = tts.TrulySparseLinear(4, 3, density=0.5, generator=seeded())
    optimizer = tts.optim.SGD(layer.parameters(), lr=0.1, clip_value=1.0)
    layer(torch.ones(1, 4)).sum().mul(torch.nan).backward()
    optimizer.step()
    assert layer.values.isnan().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_activations_of_half_precision(dtype: torch.dtype) -> None:
    x = torch.randn(8, 50, generator=seeded(1))
    results = []
    for module in torch.optim, tts.optim:
        model = network(torch.float32)
        optimizer = module.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = model(x).float().square().mean()
            loss.backward()
            optimizer.step()
        assert optimizer.state[model[0].values]["momentum_buffer"].dtype == torch.float32
        results.append(model)
    for p, q in zip(results[0].parameters(), results[1].parameters(), strict=True):
        torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-6)


def test_a_batch_without_samples_decays_the_weights() -> None:
    pairs = twins("SGD", lr=0.1, momentum=0.9, weight_decay=0.1)
    for model, optimizer in pairs:
        for batch in 8, 0, 8:
            optimizer.zero_grad()
            model(torch.ones(batch, 50, dtype=torch.float64)).sum().backward()
            optimizer.step()
    assert_alike(*pairs)


def test_a_closure_is_called_within_the_step() -> None:
    theirs, ours = twins("SGD", lr=0.1, momentum=0.9)
    for data in batches(ours[0], 8, 3):
        for model, optimizer in theirs, ours:

            def closure(model: Any = model, optimizer: Any = optimizer, data: Any = data) -> Tensor:
                optimizer.zero_grad()
                loss = cross_entropy(model(data[0]), data[1])
                loss.backward()
                return loss

            assert optimizer.step(closure).item() > 0
    assert_alike(theirs, ours)


def test_frozen_weights_stay() -> None:
    model = network()
    model[0].values.requires_grad_(False)
    before = model[0].values.clone()
    optimizer = tts.optim.SGD(model.parameters(), lr=0.1)
    step(model, optimizer, batches(model, 4, 1)[0])
    assert torch.equal(model[0].values, before)


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    trained = []
    for threads in 1, 2, 3:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = network(torch.float32, scale=20)
            optimizer = tts.optim.AdamW(model.parameters())
            for data in batches(model, 40, 2):
                step(model, optimizer, data)
        finally:
            torch.set_num_threads(before)
        trained.append(model)
    for other in trained[1:]:
        assert torch.equal(other[0].values, trained[0][0].values)
        assert torch.equal(other[2].values, trained[0][2].values)


# Where the gradient is made after all


def gradients_as_usual(change: Callable[[nn.Sequential], Any]) -> None:
    """A network of which `change` asks for gradients is trained as torch trains it."""
    theirs, ours = twins("SGD", lr=0.1, momentum=0.9)
    change(theirs[0])
    change(ours[0])
    for data in batches(ours[0], 8, 3):
        step(*theirs, data)
        step(*ours, data)
        assert ours[0][0].values.grad is not None
    assert_alike(theirs, ours)


def test_a_hook_on_the_weights_sees_and_changes_their_gradient() -> None:
    gradients_as_usual(lambda model: model[0].values.register_hook(lambda g: g * 0.5))


def test_a_hook_after_accumulation_sees_the_gradient() -> None:
    def halve(parameter: Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(0.5)

    gradients_as_usual(lambda model: model[0].values.register_post_accumulate_grad_hook(halve))


def test_activation_checkpointing() -> None:
    class Checkpointed(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer = layer

        @property
        def values(self) -> Any:
            return self.layer.values

        @property
        def in_features(self) -> int:
            return self.layer.in_features

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.layer, x, use_reentrant=False)

    def change(model: nn.Sequential) -> None:
        model[0] = Checkpointed(model[0])

    gradients_as_usual(change)


def test_weights_kept_elsewhere_until_the_backward_pass() -> None:
    theirs, ours = twins("SGD", lr=0.1, momentum=0.9)
    for data in batches(ours[0], 8, 3):
        for model, optimizer in theirs, ours:
            optimizer.zero_grad()
            with torch.autograd.graph.save_on_cpu():
                loss = cross_entropy(model(data[0]), data[1])
            loss.backward()
            optimizer.step()
    assert_alike(theirs, ours)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler has its own
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_compiled_network() -> None:
    theirs, ours = twins("SGD", lr=0.1, momentum=0.9)
    compiled = torch.compile(ours[0], backend="aot_eager")
    for data in batches(ours[0], 8, 3):
        step(*theirs, data)
        step(compiled, ours[1], data)
    assert_alike(theirs, ours)


@pytest.mark.parametrize("method", [tts.RigL, tts.SparseMomentum])
def test_growth_by_gradient_gets_its_gradient(method: Any) -> None:
    theirs, ours = twins("SGD", lr=0.1, momentum=0.9)
    updated = set()
    for model, optimizer in theirs, ours:
        method(model, optimizer, every=3, total_steps=12, generator=seeded(3))
        for data in batches(model, 8, 8):
            step(model, optimizer, data)
            if model is ours[0]:
                updated.add(model[0].values.grad is None)
    assert torch.equal(theirs[0][0].indices, ours[0][0].indices)
    assert_alike(theirs, ours)
    if method is tts.RigL:
        assert updated == {True, False}  # only the steps that growth looks at have a gradient


@needs_gloo
def test_one_process_of_a_group_trains_as_usual(tmp_path: Path) -> None:
    (trained,) = on_ranks(train_on_ranks, 1, tmp_path)
    model, optimizer = twins("SGD", lr=0.1, momentum=0.9)[0]
    for data in batches(model, 8, 3):
        step(model, optimizer, data)
    for p, q in zip(model.parameters(), trained, strict=True):
        torch.testing.assert_close(q, p.detach())


@needs_gloo
def test_several_processes_average_their_gradients(tmp_path: Path) -> None:
    one, other = on_ranks(train_on_ranks, 2, tmp_path)
    model, optimizer = twins("SGD", lr=0.1, momentum=0.9)[0]
    for data in batches(model, 8, 3):
        step(model, optimizer, data)
    for p, q, r in zip(model.parameters(), one, other, strict=True):
        assert torch.equal(q, r)
        torch.testing.assert_close(q, p.detach())


def train_on_ranks(rank: int, size: int, folder: Path) -> list[Tensor]:
    model = network()
    replica = DistributedDataParallel(tts.distributed.prepare(model))
    optimizer = tts.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches(model, 8, 3):
        step(replica, optimizer, (x[rank::size], y[rank::size]))
    return [p.detach() for p in model.parameters()]


# Where nothing may be updated


@pytest.mark.parametrize("inputs", ["input", "values"])
def test_gradients_that_are_asked_for_update_nothing(inputs: str) -> None:
    model = network()
    tts.optim.SGD(model.parameters(), lr=0.1)
    optimizer = tts.optim.SGD(model.parameters(), lr=0.1)
    before = [p.clone() for p in model.parameters()]
    x = torch.randn(4, 50, dtype=torch.float64, requires_grad=True)
    wanted = x if inputs == "input" else model[0].values
    (first,) = torch.autograd.grad(model(x).sum(), wanted)
    model(x).sum().backward(inputs=[x])
    (second,) = torch.autograd.grad(model(x).sum(), wanted, create_graph=True)
    assert torch.equal(first, second.detach())
    for p, q in zip(model.parameters(), before, strict=True):
        assert torch.equal(p, q)
    optimizer.step()


def test_a_function_of_the_weights_has_its_gradient() -> None:
    layer = tts.TrulySparseLinear(50, 40, density=0.2, generator=seeded())
    optimizer = tts.optim.SGD(layer.parameters(), lr=0.1)
    twin = copy.deepcopy(layer)
    x = torch.randn(4, 50, generator=seeded(1))
    for each in layer, twin:
        scaled = {"values": each.values * 2}
        torch.func.functional_call(each, scaled, (x,)).sum().backward()
    assert torch.equal(layer.values.grad, twin.values.grad)
    optimizer.step()
    torch.testing.assert_close(layer.values, twin.values - 0.1 * twin.values.grad)


def test_an_optimizer_that_is_gone_updates_nothing() -> None:
    layer = tts.TrulySparseLinear(50, 40, density=0.2, generator=seeded())
    optimizer = tts.optim.SGD(layer.parameters(), lr=0.1)
    del optimizer
    gc.collect()
    before = layer.values.clone()
    layer(torch.ones(2, 50)).sum().backward()
    assert torch.equal(layer.values, before)
    assert layer.values.grad is not None


def test_the_optimizer_that_was_made_last_updates() -> None:
    layer = tts.TrulySparseLinear(50, 40, density=0.2, generator=seeded())
    first = tts.optim.SGD(layer.parameters(), lr=0.5)
    second = tts.optim.SGD(layer.parameters(), lr=0.1)
    twin = copy.deepcopy(layer)
    plain = torch.optim.SGD(twin.parameters(), lr=0.1)
    x = torch.randn(4, 50, generator=seeded(1))
    for each, optimizer in (layer, second), (twin, plain):
        each(x).sum().backward()
        if each is layer:
            with pytest.raises(RuntimeError, match="updated by another optimizer"):
                first.step()
        optimizer.step()
    torch.testing.assert_close(layer.values, twin.values)


# What cannot be done


def loss_of(model: nn.Module) -> Tensor:
    data = batches(model, 4, 1)[0]
    return cross_entropy(model(data[0]), data[1])


@each_kind
def test_accumulation_is_refused(kind: str) -> None:
    model = network()
    optimizer = getattr(tts.optim, kind)(model.parameters())
    loss_of(model).backward()
    after_one = model[2].values.clone()
    with pytest.raises(RuntimeError, match=f"accumulate.*torch.optim.{kind}"):
        loss_of(model).backward()
    assert torch.equal(model[2].values, after_one)  # the layer that came first
    optimizer.step()


def test_a_layer_that_is_used_twice_is_refused() -> None:
    layer = tts.TrulySparseLinear(10, 10, density=0.5, generator=seeded())
    optimizer = tts.optim.SGD(layer.parameters())
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="use a layer twice in one pass"):
        layer(layer(torch.ones(2, 10))).sum().backward()


def test_an_older_graph_is_out_of_date() -> None:
    model = network()
    optimizer = tts.optim.SGD(model.parameters())
    old = loss_of(model)
    loss_of(model).backward()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        old.backward()


def test_a_gradient_from_before_is_refused() -> None:
    model = network()
    optimizer = tts.optim.SGD(model.parameters())
    model[0].values.grad = torch.zeros_like(model[0].values)
    before = model[0].values.clone()
    with pytest.raises(RuntimeError, match=r"call `zero_grad\(\)`, with `set_to_none=True`"):
        loss_of(model).backward()
    assert torch.equal(model[0].values, before)
    optimizer.zero_grad()


def test_a_penalty_on_the_weights_is_refused() -> None:
    model = network()
    optimizer = tts.optim.SGD(model.parameters())
    (loss_of(model) + model[0].values.abs().sum()).backward()
    with pytest.raises(RuntimeError, match="another gradient from elsewhere"):
        optimizer.step()


def test_a_gradient_scaler_is_refused() -> None:
    model = network(torch.float32)
    optimizer = tts.optim.SGD(model.parameters())
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model)).backward()
    with pytest.raises(RuntimeError, match="GradScaler"):
        scaler.step(optimizer)


def test_a_rule_that_reads_the_gradient_says_that_there_is_none() -> None:
    model = network()
    optimizer = tts.optim.SGD(model.parameters())
    evolution = tts.MEST(model, optimizer, every=100, total_steps=1000)
    loss_of(model).backward()
    optimizer.step()
    before = model[0].indices.clone()
    with pytest.raises(ValueError, match=r"no gradient.*\n.*tts\.optim"):
        evolution.step()
    assert torch.equal(model[0].indices, before)


@each_kind
@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"clip_value": 0.0}, ValueError, "`clip_value` must be greater than 0"),
        ({"clip_value": float("nan")}, ValueError, "`clip_value` must be greater than 0"),
        ({"clip_value": "1"}, TypeError, "`clip_value` must be a number"),
        ({"lr": -1.0}, ValueError, "learning rate"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay"),
    ],
)
def test_settings_out_of_range(
    kind: str, wrong: dict[str, Any], error: type[Exception], text: str
) -> None:
    layer = tts.TrulySparseLinear(10, 10, density=0.5)
    with pytest.raises(error, match=text):
        getattr(tts.optim, kind)(layer.parameters(), **wrong)
    group = {"params": [layer.values], "clip_value": -1.0}
    with pytest.raises(ValueError, match="`clip_value` must be greater than 0"):
        getattr(tts.optim, kind)([group])


def test_a_state_of_other_weights_is_refused_and_changes_nothing() -> None:
    layer = tts.TrulySparseLinear(10, 10, density=0.5, generator=seeded())
    optimizer = tts.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    optimizer.state[layer.values]["momentum_buffer"] = torch.zeros(3)
    before = layer.values.clone()
    with pytest.raises(ValueError, match="`momentum_buffer` must hold one number for each"):
        layer(torch.ones(2, 10)).sum().backward()
    assert torch.equal(layer.values, before)


def test_spoiled_indices_are_refused_and_change_nothing() -> None:
    layer = tts.TrulySparseLinear(10, 10, density=0.5, generator=seeded())
    optimizer = tts.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    loss = layer(torch.ones(2, 10)).sum()
    before = layer.values.clone()
    layer.indices.numpy()[1, -1] = 99  # past every counter of changes
    with pytest.raises(ValueError, match="outside"):
        loss.backward()
    assert torch.equal(layer.values, before)
    assert not optimizer.state


# States


def test_a_loaded_state_begins_a_step() -> None:
    model = network()
    optimizer = tts.optim.SGD(model.parameters())
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    (loss_of(model) + model[0].values.abs().sum()).backward()
    with pytest.raises(RuntimeError, match="another gradient"):
        optimizer.step()
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    step(model, optimizer, batches(model, 4, 1)[0])
    assert model[0].values.grad is None


@each_kind
@pytest.mark.parametrize("resumed_by", ["ours", "torch"])
def test_states_are_interchangeable(kind: str, resumed_by: str) -> None:
    settings = {"lr": 0.01, **MOMENTUM[kind]}
    expected, start = twins(kind, **settings)
    if resumed_by == "ours":
        expected, start = start, expected
    data = batches(expected[0], 8, 6)
    for each in data[:3]:
        step(*expected, each)
        step(*start, each)
    model = network()
    module = tts.optim if resumed_by == "ours" else torch.optim
    optimizer = getattr(module, kind)(model.parameters(), lr=1.0)
    saved = io.BytesIO()
    torch.save((start[0].state_dict(), start[1].state_dict()), saved)
    saved.seek(0)
    weights, state = torch.load(saved, weights_only=True)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    for each in data[3:]:
        step(*expected, each)
        step(model, optimizer, each)
    for p, q in zip(expected[0].parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(q, p)


@each_kind
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copy_trains_its_own_weights(kind: str, copied: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = getattr(tts.optim, kind)(model.parameters(), lr=0.01, **MOMENTUM[kind])
    data = batches(model, 8, 4)
    for each in data[:2]:
        step(model, optimizer, each)
    other = copied((model, optimizer))
    before = model[0].values.clone()
    for each in data[2:]:
        step(*other, each)
        assert other[0][0].values.grad is None
    assert torch.equal(model[0].values, before)
    for each in data[2:]:
        step(model, optimizer, each)
    for p, q in zip(model.parameters(), other[0].parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    def begin() -> Any:
        model = network(torch.float32)
        optimizer = tts.optim.AdamW(model.parameters(), lr=0.01, clip_value=0.5)
        evolution = tts.SET(model, optimizer, every=2, generator=seeded(3))
        return model, optimizer, evolution

    model, optimizer, evolution = begin()
    data = batches(model, 8, 7)
    for each in data[:4]:
        step(model, optimizer, each)
    tts.checkpoint.save(tmp_path / "run.pt", model=model, optimizer=optimizer, evolution=evolution)
    for each in data[4:]:
        step(model, optimizer, each)
    other, resumed, again = begin()
    tts.checkpoint.resume(tmp_path / "run.pt", model=other, optimizer=resumed, evolution=again)
    for each in data[4:]:
        step(other, resumed, each)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
    assert resumed.param_groups[0]["clip_value"] == 0.5


# Memory

PEAK = """
import re, sys
from pathlib import Path
import torch
import torch_truly_sparse as tts

def status(key):
    return int(re.search(key + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def train(size, nnz, batch):
    generator = torch.Generator().manual_seed(0)
    layers = [tts.TrulySparseLinear(size, size, nnz=nnz, generator=generator) for _ in range(3)]
    model = torch.nn.Sequential(*layers)
    optimizer = tts.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x = torch.randn(batch, size, generator=generator)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

batch = int(sys.argv[1])
train(100, 50, batch)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
train(20_000, 4_000_000, batch)
print((status("VmHWM") - before) / 12_000_000)
"""


@pytest.mark.skipif("sys.platform != 'linux'", reason="reads peak memory from /proc")
@pytest.mark.parametrize(
    ("batch", "most"),
    [
        (2, 19.0),  # value, momentum and two indices are 16 bytes
        (40, 29.0),  # 8 more for the order by columns, 3 for the activations and their tiles
    ],
)
def test_no_gradient_of_the_weights_takes_memory(batch: int, most: float, tmp_path: Path) -> None:
    # A threshold that is set stays: otherwise malloc may keep what building the layers has freed.
    fixed = {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    run = run_python("-c", PEAK, str(batch), cwd=tmp_path, environment=fixed)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) < most
