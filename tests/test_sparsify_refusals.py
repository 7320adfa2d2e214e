"""What cannot be converted without losing something is refused by name, and nothing changes."""

from __future__ import annotations

import copy

import pytest
import torch
from oracles import all_same_bits
from torch import nn
from torch.nn.utils import parametrizations, prune

import torch_truly_sparse as tts


class Scaled(nn.Linear):
    def forward(self, input):
        return 2 * super().forward(input)


def chain(second: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), second)


def with_hook(register: str) -> nn.Module:
    layer = nn.Linear(5, 4)
    getattr(layer, register)(lambda *_: None)
    return layer


def with_gradient_hook(register: str) -> nn.Module:
    layer = nn.Linear(5, 4)
    getattr(layer.weight, register)(lambda _: None)
    return layer


def with_forward_of_its_own() -> nn.Module:
    layer = nn.Linear(5, 4)
    layer.forward = lambda input: input
    return layer


def with_more_inside() -> nn.Module:
    layer = nn.Linear(5, 4)
    layer.adapter = nn.Linear(5, 4)
    return layer


def pruned_under_a_weight_norm() -> nn.Module:
    layer = nn.Linear(5, 4)
    prune.l1_unstructured(layer, "weight", amount=0.5)
    layer.scale = nn.Parameter(torch.ones(1))
    return layer


REFUSED = {
    "subclass": (lambda: Scaled(5, 4), "it is a Scaled, whose own behaviour would be lost"),
    "lazy": (lambda: nn.LazyLinear(4), "its size is not known yet; run a batch"),
    "weight_norm": (
        lambda: parametrizations.weight_norm(nn.Linear(5, 4)),
        "its weight is parametrized; torch.nn.utils.parametrize.remove_parametrizations",
    ),
    "spectral_norm": (
        lambda: parametrizations.spectral_norm(nn.Linear(5, 4)),
        "its weight is parametrized",
    ),
    "old spectral_norm": (lambda: nn.utils.spectral_norm(nn.Linear(5, 4)), "it has a hook"),
    "forward hook": (
        lambda: with_hook("register_forward_hook"),
        r"it has a hook \(forward_hooks: <lambda>\); remove it, and register it on the new layer",
    ),
    "pre-hook": (lambda: with_hook("register_forward_pre_hook"), "it has a hook"),
    "backward hook": (lambda: with_hook("register_full_backward_hook"), "it has a hook"),
    "state hook": (lambda: with_hook("register_state_dict_post_hook"), "it has a hook"),
    "load hook": (lambda: with_hook("register_load_state_dict_pre_hook"), "it has a hook"),
    "tensor hook": (lambda: with_gradient_hook("register_hook"), "'weight' has a gradient hook"),
    "accumulate hook": (
        lambda: with_gradient_hook("register_post_accumulate_grad_hook"),
        "'weight' has a gradient hook",
    ),
    "forward": (with_forward_of_its_own, "its `forward` has been replaced"),
    "child": (with_more_inside, "it holds 'adapter' beside its weight and bias"),
    "parameter": (pruned_under_a_weight_norm, "it holds 'scale' beside its weight and bias"),
    "bfloat16": (lambda: nn.Linear(5, 4).bfloat16(), "is torch.bfloat16; sparse weights are"),
    "complex": (lambda: nn.Linear(5, 4, dtype=torch.complex64), "is torch.complex64"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.spectral_norm:FutureWarning")
def test_a_layer_that_is_more_than_a_plain_one(kind, inplace):
    make, reason = REFUSED[kind]
    model = chain(make())
    first = model[0]
    exclude = ["1"]
    with pytest.raises(ValueError, match=rf"(?s)put their names into `exclude`.*\n  1: .*{reason}"):
        tts.sparsify(model, density=0.5, inplace=inplace)
    assert model[0] is first
    kept = tts.sparsify(model, density=0.5, exclude=exclude, inplace=True)
    assert type(kept[0]) is tts.TrulySparseLinear


def test_every_refused_layer_is_named():
    model = nn.ModuleDict({"a": Scaled(3, 3), "b": nn.Linear(3, 3), "c": Scaled(3, 3)})
    with pytest.raises(ValueError, match=r"(?s)\n  a: it is a Scaled.*\n  c: it is a Scaled"):
        tts.sparsify(model, density=0.5)


@pytest.mark.parametrize("convert", [tts.sparsify, tts.densify])
def test_a_model_that_cannot_be_copied_is_left_as_it_was(convert):
    """torch copies no module with a pruned weight; here one that stays."""
    head = nn.Linear(4, 2)
    prune.l1_unstructured(head, "weight", 0.5)
    first = nn.Linear(6, 4) if convert is tts.sparsify else tts.TrulySparseLinear(6, 4, nnz=9)
    model, how = nn.Sequential(first, head), {"density": 0.5, "exclude": ["1"]}
    how = how if convert is tts.sparsify else {}
    with pytest.raises(ValueError, match=r"`model` cannot be copied .*`inplace=True` changes"):
        convert(model, **how)
    assert model[0] is first
    convert(model, **how, inplace=True)
    assert type(model[0]) is not type(first)
    assert model[1] is head


class Tied(nn.Module):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 5)
        self.body = nn.Linear(5, 5)
        self.head = nn.Linear(5, 6)
        if what == "embedding":
            self.head.weight = self.embed.weight
        if what == "linear":
            self.other = nn.Linear(5, 6)
            self.other.weight = self.head.weight
        if what == "bias":
            self.other = nn.Linear(3, 6)
            self.other.bias = self.head.bias
        if what == "parameter":
            self.free = self.head.weight


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("embedding", "head: its 'weight' is tied to 'embed.weight'"),
        ("linear", "(?s)head: its 'weight' is tied to 'other.weight'.*other: its 'weight' is tied"),
        ("bias", "head: its 'bias' is tied to 'other.bias'"),
        ("parameter", "head: its 'weight' is tied to 'free'"),
    ],
)
def test_tied_weights(what, reason):
    model = Tied(what)
    with pytest.raises(ValueError, match=reason):
        tts.sparsify(model, density=0.5)
    exclude = [name for name in ("head", "other") if hasattr(model, name)]
    copied = tts.sparsify(model, density=0.5, exclude=exclude)
    if what == "embedding":
        assert copied.head.weight is copied.embed.weight
    if len(exclude) == 2:  # leaving one of the two alone would untie them all the same
        with pytest.raises(ValueError, match=r"would no longer be"):
            tts.sparsify(model, density=0.5, exclude=["other"])


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({}, TypeError, "exactly one of `density` and `epsilon` must be given"),
        ({"density": 0.1, "epsilon": 2}, TypeError, "exactly one of `density` and `epsilon`"),
        ({"density": 2}, ValueError, r"`density` must lie in \[0, 1\], got 2"),
        ({"density": 0.1, "init": "zeros"}, ValueError, "`init` must be one of random, magnitude"),
        ({"density": 0.1, "init": "nonzero"}, TypeError, "`init='nonzero'` keeps what is there"),
        ({"density": 0.1, "generator": 3}, TypeError, "`generator` must be a torch.Generator"),
        (
            {"density": 0.1, "exclude": ["head"]},
            ValueError,
            r"`exclude` has 'head', which matches none of the layers \(0, 1\) and no module",
        ),
        (
            {"density": 0.1, "per_layer": {"2": 0.5}},
            ValueError,
            r"`per_layer` has '2', which matches none of the layers \(0, 1\) and no module",
        ),
        (
            {"density": 0.1, "exclude": ["1"], "per_layer": {"1": 0.5}},
            ValueError,
            r"`per_layer` has '1', which matches none of the layers \(0\) and no module",
        ),
        ({"density": 0.1, "per_layer": {"1": 2}}, ValueError, r"`per_layer\['1'\]` must lie in"),
        ({"density": 0.1, "per_layer": {"1": "2"}}, TypeError, r"`per_layer\['1'\]` must be a num"),
        ({"density": 0.1, "per_layer": [0.5]}, TypeError, "`per_layer` must map globs to dens"),
        ({"density": 0.1, "exclude": "1"}, TypeError, r"`exclude` .* write \['1'\]"),
        ({"density": 0.1, "exclude": [1]}, TypeError, "`exclude` must hold globs of module names"),
        ({"density": 0.1, "exclude": 1}, TypeError, "`exclude` must be a list of globs, got 1"),
        (
            {"density": 0.1, "exclude": ["*"]},
            ValueError,
            "no Linear to replace, because `exclude` matches",
        ),
    ],
)
def test_a_wrong_argument_says_what_is_expected(how, error, message):
    model = chain(nn.Linear(5, 4))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        tts.sparsify(model, inplace=True, **how)
    assert all_same_bits(model.state_dict(), before)


def test_what_is_no_model_or_has_nothing_to_convert():
    with pytest.raises(TypeError, match=r"`model` must be an nn.Module, got list"):
        tts.sparsify([nn.Linear(2, 2)], density=0.5)
    with pytest.raises(ValueError, match=r"`model` has no Linear to replace$"):
        tts.sparsify(nn.Conv2d(1, 1, 1), density=0.5)
    with pytest.raises(ValueError, match=r"`model` has no TrulySparseLinear to replace$"):
        tts.densify(nn.Linear(2, 2))


class Excessive(tts.topology.Distribution):
    def counts(self, shapes):
        return [out * in_ + 1 for out, in_ in shapes]


def test_a_distribution_that_gives_too_much_is_named():
    model = chain(nn.Linear(5, 4))
    with pytest.raises(ValueError, match=r"`distribution` gives '0' 31 connections; there are 30"):
        tts.sparsify(model, distribution=Excessive(), inplace=True)
    assert type(model[0]) is nn.Linear


def test_densify_refuses_what_it_would_lose():
    class Noted(tts.TrulySparseLinear):
        pass

    for layer, reason in [
        (Noted(4, 3, density=0.5), "it is a Noted"),
        (tts.TrulySparseLinear(4, 3, density=0.5), "it has a hook"),
    ]:
        layer.register_forward_hook(lambda *_: None)
        with pytest.raises(ValueError, match=reason):
            tts.densify(nn.Sequential(layer))
    one, other = (tts.TrulySparseLinear(4, 4, density=0.5) for _ in range(2))
    other.values = one.values
    with pytest.raises(ValueError, match=r"its 'values' is tied to '1.values'"):
        tts.densify(nn.Sequential(one, other))
    with pytest.raises(ValueError, match=r"'0' is on the meta device"):
        tts.densify(nn.Sequential(tts.TrulySparseLinear(4, 4, density=0.5, device="meta")))
