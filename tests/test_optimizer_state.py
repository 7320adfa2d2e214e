"""Optimizer state follows its connections; new ones get what a fresh optimizer would give them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from evolving_network import LAYERS, everything, same, view_of
from torch import Tensor, nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse.evolution import register_optimizer

LR = 0.05
OPTIMIZERS: dict[str, tuple[type[optim.Optimizer], dict[str, Any]]] = {
    "SGD": (optim.SGD, {}),
    "SGD-momentum": (optim.SGD, {"momentum": 0.9, "dampening": 0.5}),
    "SGD-nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "Adam": (optim.Adam, {}),
    "Adam-amsgrad": (optim.Adam, {"amsgrad": True}),
    "AdamW": (optim.AdamW, {"amsgrad": True}),
    "NAdam": (optim.NAdam, {}),
    "RAdam": (optim.RAdam, {}),
    "Adamax": (optim.Adamax, {}),
    "Adadelta": (optim.Adadelta, {}),
    "Adafactor": (optim.Adafactor, {}),
    "RMSprop": (optim.RMSprop, {}),
    "RMSprop-centered": (optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "Adagrad": (optim.Adagrad, {"initial_accumulator_value": 0.1}),
    "Rprop": (optim.Rprop, {}),
    "ASGD": (optim.ASGD, {"t0": 1, "lambd": 0.0}),  # averages from the third step on
}
FUSED_ON_CPU = (optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad)


def cases() -> list[Any]:
    """List every layer type x optimizer x implementation that is supported."""
    listed = []
    for layer in LAYERS:
        for name, (kind, settings) in OPTIMIZERS.items():
            if layer is tts.MaskedLinear and kind is optim.Adafactor:
                continue  # refused, see below
            forms = ["foreach=False", "foreach=True"] + ["fused=True"] * (kind in FUSED_ON_CPU)
            for form in forms:
                key, value = form.split("=")
                chosen = {**settings, "lr": LR, key: value == "True"}
                label = f"{layer.__name__}-{name}-{form}"
                listed.append(pytest.param(layer, kind, chosen, id=label))
    return listed


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Keep the small products of the masked twin from waiting for busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


every_case = pytest.mark.parametrize(("layer_type", "kind", "settings"), cases())


def network(layer_type: type[tts.nn.SparseLayer], seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}
    return nn.Sequential(
        layer_type(12, 20, density=0.3, **options),
        nn.Tanh(),
        layer_type(20, 5, density=0.4, **options),
    )


def train(model: nn.Module, optimizer: optim.Optimizer, steps: int, seed: int = 1) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        x = torch.randn(8, 12, dtype=torch.float64, generator=generator)
        y = torch.randn(8, 5, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# What follows, what stays, what is new


@dataclass
class Connections:
    """One layer's connections: for each position its weight, gradient and optimizer state."""

    positions: list[int]
    followers: dict[str, Tensor]

    @classmethod
    def of(cls, layer: tts.nn.SparseLayer, optimizer: optim.Optimizer) -> "Connections":
        parameter = layer.weight_parameter
        tensors = {"weight": parameter.detach(), "gradient": parameter.grad}
        for key, entry in optimizer.state[parameter].items():
            if isinstance(entry, Tensor) and entry.shape == parameter.shape:
                tensors[key] = entry
        positions = layer.topology.positions().tolist()
        followers = {key: layer.gather(entry).clone() for key, entry in tensors.items()}
        return cls(positions, followers)

    def at(self, positions: list[int]) -> dict[str, Tensor]:
        slots = [self.positions.index(position) for position in positions]
        return {key: entries[slots] for key, entries in self.followers.items()}


@dataclass
class Evolved:
    """A layer before and after an evolution."""

    before: Connections
    after: Connections
    survivors: list[int]
    grown: list[int]


def evolve(layer_type: Any, kind: Any, settings: dict[str, Any]) -> list[Evolved]:
    """Train three steps, evolve, and return what happened to each layer."""
    model = network(layer_type)
    optimizer = kind(model.parameters(), **settings)
    train(model, optimizer, 3)
    layers = [model[0], model[2]]
    before = [Connections.of(layer, optimizer) for layer in layers]
    prune = tts.rules.MagnitudePrune()
    tts.SparseEvolution(model, optimizer, prune=prune, fraction=0.4).step()
    evolved = []
    for layer, old in zip(layers, before, strict=True):
        new = Connections.of(layer, optimizer)
        dropped = prune.select(view_of(old.followers["weight"]), 0.4, generator=None).tolist()
        kept = [p for p, gone in zip(old.positions, dropped, strict=True) if not gone]
        grown = [position for position in new.positions if position not in kept]
        evolved.append(Evolved(old, new, kept, grown))
    return evolved


@every_case
def test_survivors_keep_weight_gradient_and_state_bit_for_bit(layer_type, kind, settings) -> None:
    for layer in evolve(layer_type, kind, settings):
        kept, found = layer.before.at(layer.survivors), layer.after.at(layer.survivors)
        assert kept.keys() == found.keys()
        assert kept.keys() > {"weight", "gradient"} or kind is optim.SGD
        for key, entries in kept.items():
            assert entries.unique().numel() > 1 or key == "step_size", f"{key} shows nothing"
            assert torch.equal(entries, found[key]), key


@every_case
def test_new_connections_get_the_state_that_a_fresh_optimizer_gives(
    layer_type, kind, settings
) -> None:
    for layer in evolve(layer_type, kind, settings):
        found = layer.after.at(layer.grown)
        assert len(layer.grown) == round(0.4 * len(layer.before.positions))
        assert not found.pop("gradient").any()
        weights = found.pop("weight")
        # A fresh optimizer that has seen no gradient yet, but has made its state.
        parameter = nn.Parameter(weights.clone())
        parameter.grad = torch.zeros_like(parameter)
        fresh = kind([parameter], **settings)
        fresh.step()
        for key, entries in found.items():
            # Adamax's infinity norm of no gradient is its `eps` of 1e-8.
            expected = fresh.state[parameter][key]
            torch.testing.assert_close(entries, expected, rtol=0, atol=1e-7)


@every_case
def test_all_else_stays(layer_type, kind, settings) -> None:
    """Step counters, the bias and its state, and the identity of every parameter and entry."""

    def rest() -> list[Tensor]:
        biases = [model[0].bias, model[2].bias]
        scalars = [
            entry
            for layer in (model[0], model[2])
            for entry in optimizer.state[layer.weight_parameter].values()
            if isinstance(entry, Tensor) and entry.dim() == 0
        ]
        of_biases = [entry for bias in biases for entry in optimizer.state[bias].values()]
        tensors = [*biases, *(bias.grad for bias in biases), *scalars, *of_biases]
        return [tensor.detach().clone() for tensor in tensors if isinstance(tensor, Tensor)]

    def identities() -> list[int]:
        state = [id(entry) for held in optimizer.state.values() for entry in held.values()]
        return [id(parameter) for parameter in model.parameters()] + state

    model = network(layer_type)
    optimizer = kind(model.parameters(), **settings)
    train(model, optimizer, 3)
    before, objects = rest(), identities()
    tts.SparseEvolution(model, optimizer, fraction=0.4).step()
    assert same(before, rest())
    assert objects == identities()


def test_masked_state_is_zero_where_there_is_no_connection() -> None:
    model = network(tts.MaskedLinear)
    optimizer = optim.Adam(model.parameters(), lr=LR)
    train(model, optimizer, 3)
    tts.SparseEvolution(model, optimizer, fraction=0.4).step()
    for layer in (model[0], model[2]):
        for tensor in (layer.weight, layer.weight.grad, optimizer.state[layer.weight]["exp_avg"]):
            assert not tensor[~layer.mask].any()


def test_each_parameter_group_has_its_own_fresh_state() -> None:
    model = network(tts.TrulySparseLinear)
    groups = [
        {"params": model[0].parameters(), "lr": 0.02},
        {"params": model[2].parameters(), "lr": torch.tensor(0.03)},
    ]
    optimizer = optim.Rprop(groups, foreach=False)
    train(model, optimizer, 3)
    optimizer.param_groups[0]["lr"] = 0.01  # as a scheduler does
    tts.SparseEvolution(model, optimizer, fraction=1.0).step()
    for layer, lr in ((model[0], 0.01), (model[2], 0.03)):
        sizes = optimizer.state[layer.values]["step_size"]
        torch.testing.assert_close(sizes, torch.full_like(sizes, lr), rtol=1e-6, atol=0)


def test_before_the_first_step_there_is_no_state_to_move() -> None:
    model = network(tts.TrulySparseLinear)
    optimizer = optim.Adam(model.parameters(), lr=LR)
    tts.SparseEvolution(model, optimizer).step()
    assert not optimizer.state
    train(model, optimizer, 1)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "Adafactor"])
def test_twins_walk_the_same_way(name: str) -> None:
    kind, settings = OPTIMIZERS[name]
    losses, topologies = [], []
    for layer_type in LAYERS:
        model = network(layer_type)
        optimizer = kind(model.parameters(), lr=0.02, **settings)
        generator = torch.Generator().manual_seed(5)
        tts.SparseEvolution(model, optimizer, every=5, generator=generator)
        topologies.append([])
        losses.append([])
        for interval in range(5):
            losses[-1] += train(model, optimizer, 5, seed=interval)
            topologies[-1] += [model[0].indices.int().clone(), model[2].indices.int().clone()]
    assert same(*topologies)
    assert not torch.equal(topologies[0][0], topologies[0][-2])
    assert losses[0] == pytest.approx(losses[1], rel=1e-10, abs=0)


# What cannot follow


class SignMomentum(optim.Optimizer):
    """An optimizer of the user's own, with one entry per weight and one for all of them."""

    def __init__(self, parameters, lr: float = 0.1) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                velocity = state.setdefault("velocity", torch.ones_like(parameter))
                state["step"] = state.get("step", 0) + 1
                parameter.sub_(velocity.lerp_(parameter.grad.sign(), 0.1), alpha=group["lr"])


@pytest.mark.parametrize("kind", [optim.LBFGS, optim.SparseAdam, optim.Muon, SignMomentum])
def test_an_optimizer_that_cannot_be_followed_is_refused_by_name(kind) -> None:
    model = network(tts.MaskedLinear)  # Muon takes matrices only
    optimizer = kind([model[0].weight, model[2].weight])
    with pytest.raises(TypeError, match=rf"{kind.__name__} cannot follow.*register_optimizer"):
        tts.SparseEvolution(model, optimizer)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_sharded_optimizer_is_refused_by_name() -> None:
    kind = pytest.importorskip("torch.distributed.optim").ZeroRedundancyOptimizer
    optimizer = object.__new__(kind)  # making a whole one takes a process group
    with pytest.raises(TypeError, match="ZeroRedundancyOptimizer cannot follow"):
        tts.SparseEvolution(network(tts.TrulySparseLinear), optimizer)


def test_something_else_than_an_optimizer_is_refused() -> None:
    model = network(tts.TrulySparseLinear)
    scheduler = optim.lr_scheduler.StepLR(optim.SGD(model.parameters()), 1)
    with pytest.raises(TypeError, match=r"must be a torch\.optim\.Optimizer, got StepLR"):
        tts.SparseEvolution(model, scheduler)


def test_adafactor_on_a_matrix_is_refused_and_nothing_changes() -> None:
    # Its state for a matrix is one number for each row and column: nothing to move.
    model = network(tts.MaskedLinear)
    optimizer = optim.Adafactor(model.parameters(), lr=LR)
    evolution = tts.SparseEvolution(model, optimizer)
    train(model, optimizer, 3)
    before = everything(model, optimizer)
    with pytest.raises(TypeError, match=r"'row_var' of Adafactor for layer '0'"):
        evolution.step()
    assert same(before, everything(model, optimizer))


@pytest.mark.parametrize("entry", [lambda p: torch.zeros_like(p), lambda p: torch.zeros(3)])
def test_an_entry_that_is_not_known_is_refused_and_nothing_changes(entry) -> None:
    model = network(tts.TrulySparseLinear)
    optimizer = optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    evolution = tts.SparseEvolution(model, optimizer)
    train(model, optimizer, 3)
    optimizer.state[model[2].values]["extra"] = entry(model[2].values)
    before = everything(model, optimizer)
    with pytest.raises(TypeError, match=r"'extra' of SGD for layer '2'"):
        evolution.step()
    assert same(before, everything(model, optimizer))


# What the user describes


@pytest.mark.parametrize("fresh", [0.5, lambda group, weights: group["lr"] + 0 * weights])
def test_a_registered_optimizer_is_followed(fresh) -> None:
    class Registered(SignMomentum): ...

    class Descendant(Registered): ...

    register_optimizer(Registered, {"velocity": fresh})
    for kind in (Registered, Descendant):
        for layer in evolve(tts.TrulySparseLinear, kind, {"lr": 0.5}):
            kept, found = layer.before.at(layer.survivors), layer.after.at(layer.survivors)
            assert torch.equal(kept["velocity"], found["velocity"])
            assert layer.after.at(layer.grown)["velocity"].eq(0.5).all()


@pytest.mark.parametrize(
    "fresh",
    [
        lambda group, weights: 1 / (len(weights) - 16),  # no number for the second layer
        lambda group, weights: torch.zeros(29, dtype=weights.dtype),  # too few for the second
    ],
    ids=["raises", "wrong_shape"],
)
def test_a_description_that_fails_changes_nothing(fresh) -> None:
    class Registered(SignMomentum): ...

    register_optimizer(Registered, {"velocity": fresh})
    model = network(tts.TrulySparseLinear)
    optimizer = Registered(model.parameters())
    evolution = tts.SparseEvolution(
        model, optimizer, prune=tts.rules.MagnitudePrune(), fraction=0.4
    )
    train(model, optimizer, 3)
    before = everything(model, optimizer)
    with pytest.raises((ZeroDivisionError, ValueError)):
        evolution.step()
    assert same(before, everything(model, optimizer))


@pytest.mark.parametrize("optimizer", [optim.SGD([nn.Parameter()]), int, "SGD"], ids=repr)
def test_only_an_optimizer_class_can_be_registered(optimizer: object) -> None:
    with pytest.raises(TypeError, match="`optimizer` must be a subclass"):
        register_optimizer(optimizer, {})
