"""What an evolution refuses, leaving everything as it was."""

from collections.abc import Callable
from typing import Any

import pytest
from evolving_network import (
    both_twins,
    everything,
    network,
    same,
    sgd,
    train_step,
)
from torch import Tensor, nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse import rules
from torch_truly_sparse.schedules import Constant


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"fraction": 1.1}, ValueError, r"`fraction` must lie in \[0, 1\], got 1.1"),
        ({"fraction": -0.1}, ValueError, r"`fraction` must lie in \[0, 1\]"),
        ({"fraction": float("nan")}, ValueError, r"`fraction` must lie in \[0, 1\]"),
        ({"every": 0}, ValueError, "`every` must be at least 1, got 0"),
        ({"every": 2.0}, TypeError, "`every` must be an int, got float"),
        ({"every": True}, TypeError, "`every` must be an int, got bool"),
        ({"stop": 0}, ValueError, "`stop` must be at least 1"),
        ({"prune": rules.MagnitudePrune}, TypeError, r"PruneRule.*write MagnitudePrune\(\)"),
        ({"regrow": rules.RandomRegrow}, TypeError, r"RegrowRule.*write RandomRegrow\(\)"),
        ({"prune": "sgin_split"}, ValueError, "`prune` must be one of sign_split, .*'sgin_split'"),
        ({"regrow": "rigl"}, ValueError, "`regrow` must be one of random, gradient,"),
        ({"shrink": "neurons"}, ValueError, "`shrink` must be one of importance, got"),
        ({"redistribute": "weights"}, ValueError, "`redistribute` must be one of momentum, got"),
        (
            {"shrink": rules.MagnitudePrune()},
            TypeError,
            "`shrink` must be a ShrinkRule or its name",
        ),
        ({"prune": rules.RandomRegrow()}, TypeError, "`prune` must be a PruneRule"),
        ({"exclude": "head"}, TypeError, r"write \['head'\]"),
        ({"exclude": ["hed"]}, ValueError, r"'hed', which matches none of the layers \(0, 2\)"),
        ({"exclude": ["*"]}, ValueError, "no sparse layer to evolve"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_and_leaves_no_hook(settings, error, message) -> None:
    model = network()
    optimizer = sgd(model)
    with pytest.raises(error, match=message):
        tts.SparseEvolution(model, optimizer, **settings)
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize(
    "settings", [{"generator": 0}, {"fraction": Constant}, {"fraction": "0.3"}], ids=str
)
def test_an_argument_of_the_wrong_type_is_refused_by_name(settings) -> None:
    model = network()
    (name,) = settings
    with pytest.raises(TypeError, match=f"`{name}`"):
        tts.SparseEvolution(model, sgd(model), **settings)


def wrapped() -> nn.Module:
    """A part of a model in the wrapper, which takes a process group to make in earnest."""
    part = object.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(part)
    part.module = network()
    part.parameters_to_ignore = set()
    return nn.Sequential(part)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (wrapped(), ValueError, "'0' of `model` is wrapped.*was not prepared before"),
        (wrapped()[0], ValueError, "`model` is wrapped.*was not prepared before"),
        (nn.Linear(3, 2), ValueError, "no sparse layer to evolve: use TrulySparseLinear"),
        (nn.Linear, TypeError, "`model` must be an nn.Module"),
    ],
    ids=["partly distributed", "distributed", "dense", "class"],
)
def test_a_model_with_nothing_to_evolve_is_refused(model, error, message) -> None:
    with pytest.raises(error, match=message):
        tts.SparseEvolution(model, sgd(nn.Linear(1, 1)))


def test_a_layer_that_the_optimizer_does_not_hold_is_refused() -> None:
    model = network()
    optimizer = sgd(model[0])
    with pytest.raises(ValueError, match="layer '2' are not in the optimizer"):
        tts.SparseEvolution(model, optimizer)
    assert not optimizer._optimizer_step_post_hooks
    tts.SparseEvolution(model, optimizer, exclude=["2"]).step()


def forget(model: nn.Module, optimizer: optim.Optimizer) -> None:
    held = optimizer.param_groups[0]["params"]
    held[:] = [parameter for parameter in held if parameter is not model[2].weight_parameter]


def replace(model: nn.Module, optimizer: optim.Optimizer) -> None:
    model[2].values = nn.Parameter(model[2].values.detach().clone())


@pytest.mark.parametrize("lose", [forget, replace])
def test_a_parameter_lost_later_raises_and_changes_nothing(lose: Callable) -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer)
    train_step(model, optimizer)
    lose(model, optimizer)
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match="layer '2' are not in the optimizer"):
        evolution.step()
    assert same(before, everything(model, optimizer))
    assert evolution.history == []


SECOND = 40  # connections of the second layer; the first has 72


class Prune(rules.PruneRule):
    """Prunes as it should in the first layer, and as `broken` says in the second."""

    def __init__(self, broken: Callable[[Tensor], Any]) -> None:
        self.broken = broken

    def select(self, view, fraction, *, generator) -> Any:
        dropped = rules.MagnitudePrune().select(view, fraction, generator=generator)
        return self.broken(dropped) if view.nnz == SECOND else dropped


class Regrow(rules.RandomRegrow):
    """Regrows as it should in the first layer, and as `where` and `weights` say in the second."""

    def __init__(self, where: Callable | None = None, weights: Callable | None = None) -> None:
        super().__init__()
        object.__setattr__(self, "where", where)
        object.__setattr__(self, "weights", weights)

    def select(self, view, survivors, count, *, generator) -> Any:
        grown = super().select(view, survivors, count, generator=generator)
        return self.where(grown, survivors) if self.where and view.nnz == SECOND else grown

    def draw_weights(self, view, connections, topology, *, generator) -> Any:
        drawn = super().draw_weights(view, connections, topology, generator=generator)
        return self.weights(drawn) if self.weights and view.nnz == SECOND else drawn


def fail(*_: Any) -> None:
    raise LookupError("the rule's own error")


BROKEN_RULES = {
    "prune_raises": (Prune(fail), None, "the rule's own error"),
    "prune_nothing": (Prune(lambda d: None), None, "of Prune must return a torch.bool .*got None"),
    "prune_numbers": (
        Prune(lambda d: d.nonzero().flatten()),
        None,
        "Prune must return a torch.bool",
    ),
    "prune_too_short": (Prune(lambda d: d[1:]), None, "Prune must return a torch.bool"),
    "regrow_raises": (None, Regrow(fail), "the rule's own error"),
    "regrow_nothing": (
        None,
        Regrow(lambda g, s: None),
        "`select` of Regrow .*got None",
    ),
    "too_few": (None, Regrow(lambda g, s: g[1:]), r"torch.int64 tensor of shape \(12,\)"),
    "int32": (None, Regrow(lambda g, s: g.int()), r"torch.int64 tensor of shape \(12,\)"),
    "twice_the_same": (None, Regrow(lambda g, s: g[:1].expand(12)), "increasing and distinct"),
    "unsorted": (None, Regrow(lambda g, s: g.flip(0)), "increasing and distinct"),
    "survivors": (None, Regrow(lambda g, s: s[:12]), "not be among those that survive"),
    "negative": (None, Regrow(lambda g, s: g - 100), r"in \[0, out_features \* in_features\)"),
    "too_large": (None, Regrow(lambda g, s: g + 100), r"in \[0, out_features \* in_features\)"),
    "draw_raises": (None, Regrow(weights=fail), "the rule's own error"),
    "draw_nothing": (None, Regrow(weights=lambda w: None), "`draw_weights` of Regrow .*got None"),
    "too_few_weights": (
        None,
        Regrow(weights=lambda w: w[1:]),
        r"torch.float32 .* \(12,\)",
    ),
    "other_dtype": (None, Regrow(weights=Tensor.double), "torch.float32 tensor"),
}


@both_twins
@pytest.mark.parametrize(("prune", "regrow", "message"), BROKEN_RULES.values(), ids=BROKEN_RULES)
def test_a_rule_that_fails_in_one_layer_changes_none(layer_type, prune, regrow, message) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    prune = prune or rules.MagnitudePrune()
    evolution = tts.SparseEvolution(model, optimizer, prune=prune, regrow=regrow or "random")
    train_step(model, optimizer)
    before = everything(model, optimizer)
    with pytest.raises((ValueError, TypeError, LookupError), match=message):
        evolution.step()
    assert same(before, everything(model, optimizer))
    assert evolution.history == []


@pytest.mark.parametrize("fraction", [1.5, -0.5, float("nan")])
def test_a_schedule_that_leaves_the_unit_interval_raises(fraction: float) -> None:
    model = network()
    evolution = tts.SparseEvolution(model, sgd(model), fraction=lambda step: fraction)
    with pytest.raises(ValueError, match=r"`fraction` must give numbers in \[0, 1\]"):
        evolution.step()


def test_a_layer_that_evolves_already_is_refused_until_the_first_is_removed() -> None:
    model = network()
    optimizer = sgd(model)
    first = tts.SparseEvolution(model, optimizer)
    with pytest.raises(ValueError, match="already evolves with this optimizer"):
        tts.SparseEvolution(model, optimizer)
    first.remove()
    tts.SparseEvolution(model, optimizer)


def test_state_in_a_container_cannot_follow() -> None:
    class Hoarder(optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["history"] = [parameter.clone()]

    model = network()
    optimizer = Hoarder(model.parameters(), lr=0.1)
    evolution = tts.SparseEvolution(model, optimizer)
    train_step(model, optimizer)
    with pytest.raises(TypeError, match=r"'history' of Hoarder.*cannot follow"):
        evolution.step()
