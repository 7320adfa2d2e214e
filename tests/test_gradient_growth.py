"""Growth by gradient finds what a dense gradient would show, without one."""

import pytest
import torch
from evolving_network import (
    LAYERS,
    both_twins,
    everything,
    network,
    positions,
    same,
    seeded,
    sgd,
    train_step,
)
from oracles import by_sorting
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse import rules
from torch_truly_sparse.rules import LayerView

DTYPE = torch.float64


def dense_gradient(layer: tts.nn.SparseLayer, passes: list[tuple[Tensor, Tensor]]) -> Tensor:
    return sum(dy.reshape(-1, layer.out_features).t() @ x.flatten(0, -2) for x, dy in passes)


class Watched(nn.Module):
    """Notes input and output gradient of a layer at every pass: the oracle's own capture."""

    def __init__(self, layer: tts.nn.SparseLayer) -> None:
        super().__init__()
        self.layer = layer
        self.passes: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.requires_grad:
            x = x.detach()
            y.register_hook(lambda dy: self.passes.append((x, dy)))
        return y


def watched_network(layer_type: type[tts.nn.SparseLayer]) -> nn.Sequential:
    generator = seeded()
    options = {"dtype": DTYPE, "generator": generator}
    return nn.Sequential(
        Watched(layer_type(12, 20, density=0.2, **options)),
        nn.Tanh(),
        Watched(layer_type(20, 5, density=0.3, **options)),
    )


@both_twins
def test_growth_is_where_the_dense_gradient_of_the_last_step_is_largest(layer_type) -> None:
    model = watched_network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model, optimizer, prune="magnitude", regrow="gradient", fraction=0.4, every=3
    )
    for step in range(1, 8):
        for part in (model[0], model[2]):
            part.passes.clear()
        optimizer.zero_grad()
        for batch in range(2):  # gradient accumulation
            x = torch.randn(4, 3, 12, dtype=DTYPE, generator=seeded(10 * step + batch))
            model(x).square().mean().backward()
        seen = len(evolution.history)
        layers = [model[0].layer, model[2].layer]
        before = [positions(layer) for layer in layers]
        optimizer.step()
        if len(evolution.history) == seen:
            assert [positions(layer) for layer in layers] == before
            continue
        for part, old in zip((model[0], model[2]), before, strict=True):
            layer = part.layer
            dense = dense_gradient(layer, part.passes)
            now = positions(layer)
            weights = layer.gather(layer.weight_parameter.detach())
            grown = [p for p, w in zip(now, weights.tolist(), strict=True) if w == 0]
            survivors = torch.tensor([p for p in now if p not in grown])
            assert len(grown) == round(0.4 * len(old))
            assert set(survivors.tolist()) <= set(old)
            assert grown == by_sorting(dense, survivors, len(grown))
    assert [record.step for record in evolution.history] == [4, 7]


@pytest.mark.parametrize("regrow", ["gradient", "candidate_gradient", "momentum"])
def test_twins_walk_the_same_way(regrow: str) -> None:
    walks = []
    for layer_type in LAYERS:
        model = watched_network(layer_type)
        optimizer = sgd(model)
        tts.SparseEvolution(
            model,
            optimizer,
            prune="magnitude_gradient",
            regrow=regrow,
            every=2,
            generator=seeded(1),
        )
        walk = []
        for step in range(7):
            optimizer.zero_grad()
            model(torch.randn(8, 12, dtype=DTYPE, generator=seeded(step))).exp().mean().backward()
            optimizer.step()
            walk.append([positions(model[0].layer), positions(model[2].layer)])
        walks.append(walk)
    assert walks[0] == walks[1]
    assert walks[0][0] != walks[0][-1]


def step_by_hand(model: nn.Module, evolution: tts.SparseEvolution, optimizer) -> None:
    evolution.arm()
    train_step(model, optimizer)


def test_with_all_empty_positions_for_candidates_the_two_rules_agree() -> None:
    after = []
    for regrow in (rules.GradientRegrow(), rules.CandidateGradientRegrow(candidates=100)):
        model = network()
        optimizer = sgd(model)
        evolution = tts.SparseEvolution(model, optimizer, regrow=regrow)
        step_by_hand(model, evolution, optimizer)
        evolution.step()
        after.append([positions(model[0]), positions(model[2])])
    assert after[0] == after[1]


def test_candidates_bound_where_growth_can_be() -> None:
    """Few candidates: growth is close to random; those with large gradients are preferred."""
    generator = seeded()
    layer = tts.TrulySparseLinear(40, 50, nnz=100, generator=generator)
    optimizer = sgd(layer)
    evolution = tts.SparseEvolution(
        layer,
        optimizer,
        regrow=rules.CandidateGradientRegrow(candidates=2.0),
        fraction=0.5,
        generator=generator,
    )
    evolution.arm()
    x = torch.randn(8, 40, generator=generator)
    layer(x).square().sum().backward()
    view = LayerView("layer", layer, captured=evolution._captures.of(""))
    dense = torch.cat([block.clone() for _, block in view.captured_gradient().blocks()]).abs()
    evolution.step()
    new = torch.tensor(positions(layer))[layer.values.detach() == 0]
    ranks = dense.flatten().argsort(descending=True).argsort()[new].double()
    assert len(new) == 50
    assert set(new.tolist()) != set(dense.flatten().topk(50).indices.tolist())
    assert 100 < ranks.mean() < 800  # of 2000; growth at random gives 1000 +- 80


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_momentum_growth_follows_the_discounted_gradients(momentum: float) -> None:
    steps = 3
    model = Watched(tts.TrulySparseLinear(9, 8, nnz=20, dtype=DTYPE, generator=seeded()))
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model, optimizer, regrow=rules.MomentumRegrow(momentum, steps), fraction=0.5, every=5
    )
    total = torch.zeros(8, 9, dtype=DTYPE)
    for step in range(6):
        model.passes.clear()
        optimizer.zero_grad()
        model(torch.randn(4, 9, dtype=DTYPE, generator=seeded(step))).square().mean().backward()
        if step >= 6 - steps:
            total = momentum * total + dense_gradient(model.layer, model.passes)
        optimizer.step()
    assert len(evolution.history) == 1
    now = torch.tensor(positions(model.layer))
    new = model.layer.values.detach() == 0
    assert now[new].tolist() == by_sorting(total, now[~new], 10)


# What is missing is said


@pytest.mark.parametrize("regrow", ["gradient", "candidate_gradient", "momentum"])
def test_a_step_without_capture_says_what_to_do(regrow: str) -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, regrow=regrow)
    train_step(model, optimizer)
    before = everything(model, optimizer)
    with pytest.raises(ValueError, match=r"layer '0'.*call `evolution.arm\(\)`.*backward"):
        evolution.step()
    assert same(before, everything(model, optimizer))
    step_by_hand(model, evolution, optimizer)
    evolution.step()
    with pytest.raises(ValueError, match=r"evolution.arm\(\)"):
        evolution.step()


@pytest.mark.parametrize("regrow", ["gradient", "candidate_gradient", "momentum"])
def test_a_layer_without_anything_to_grow_needs_no_gradient(regrow: str) -> None:
    layer = tts.TrulySparseLinear(6, 5, nnz=1)
    evolution = tts.SparseEvolution(layer, sgd(layer), regrow=regrow, prune="magnitude")
    assert evolution.step().regrown == 0


@pytest.mark.filterwarnings("ignore")  # torch warns itself while it traces
@pytest.mark.parametrize("seen", [True, False])
def test_a_compiled_model_grows_like_any_other_where_torch_looks_at_hooks(
    seen: bool,
) -> None:
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=not seen):
        check_compiled(seen)


@pytest.mark.filterwarnings("ignore")
def test_one_graph_for_a_step_that_is_read_is_refused_with_the_reason() -> None:
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        torch._dynamo.reset()
        model = network()
        evolution = tts.SparseEvolution(model, sgd(model), regrow="gradient")
        compiled, x = torch.compile(model, backend="eager", fullgraph=True), torch.randn(16, 12)
        compiled(x)
        evolution.arm()
        with pytest.raises(
            torch._dynamo.exc.Unsupported, match=r"compile without `fullgraph=True`"
        ):
            compiled(x)
        evolution.remove()
        compiled(x)


@pytest.mark.parametrize("regrow", ["random", "gradient"])
def test_an_optimizer_that_steps_within_the_backward_pass(regrow: str) -> None:
    layer = tts.TrulySparseLinear(12, 9, nnz=30)
    optimizer = sgd(layer)

    def step(_: Tensor) -> None:
        optimizer.step()
        optimizer.zero_grad()

    layer.values.register_post_accumulate_grad_hook(step)
    evolution = tts.SparseEvolution(layer, optimizer, regrow=regrow, every=1)
    x = torch.randn(16, 12)
    layer(x).sum().backward()
    if regrow == "gradient":
        with pytest.raises(ValueError, match="layer '': no backward pass was captured"):
            layer(x).sum().backward()
    else:
        layer(x).sum().backward()
        assert len(evolution.history) == 1


def test_a_layer_that_is_read_says_who_reads_it() -> None:
    model = network()
    evolution = tts.SparseEvolution(model, sgd(model), regrow="gradient")
    evolution.arm()
    with pytest.raises(
        ValueError, match=r"of a SparseEvolution .* `evolution.remove\(\)` takes it"
    ):
        tts.densify(model)
    evolution.remove()
    tts.densify(model)


def check_compiled(seen: bool) -> None:
    topologies = []
    for compiled in (False, True):
        torch._dynamo.reset()
        model = network()
        optimizer = sgd(model)
        tts.SparseEvolution(model, optimizer, regrow="gradient", every=2)
        forward = torch.compile(model, backend="eager") if compiled else model
        for step in range(5):
            optimizer.zero_grad()
            forward(torch.randn(16, 12, generator=seeded(step))).square().mean().backward()
            if compiled and not seen and step == 2:
                with pytest.raises(ValueError, match=r"torch\.compile set .*hook_guards = False"):
                    optimizer.step()
                return
            optimizer.step()
        topologies.append([positions(model[0]), positions(model[2])])
    assert topologies[0] == topologies[1]


def test_an_overwritten_input_is_noticed() -> None:
    layer = tts.TrulySparseLinear(6, 5, nnz=12, generator=seeded())
    evolution = tts.SparseEvolution(layer, sgd(layer), regrow="gradient")
    evolution.arm()
    x = torch.randn(4, 6)
    layer(x).sum().backward()
    x.zero_()
    before = positions(layer)
    with pytest.raises(ValueError, match="an input was changed in place"):
        evolution.step()
    assert positions(layer) == before


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: rules.CandidateGradientRegrow(0), ValueError, "`candidates` must be a finite"),
        (
            lambda: rules.CandidateGradientRegrow(torch.inf),
            ValueError,
            "`candidates` must be a fin",
        ),
        (
            lambda: rules.MomentumRegrow(1.0),
            ValueError,
            r"`momentum` must lie in \[0, 1\), got 1.0",
        ),
        (lambda: rules.MomentumRegrow(0.9, 0), ValueError, "`steps` must be at least 1, got 0"),
        (
            lambda: rules.MomentumRegrow(0.9, 2.0),
            TypeError,
            "`steps` must be an int, got float",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


def test_blocks_can_be_summed_across_processes() -> None:
    """Two ranks with half a batch each grow as one with the whole batch."""
    x = torch.randn(8, 6, dtype=DTYPE, generator=seeded(3))
    grown = {}
    for name in ("whole", "half"):
        layer = tts.TrulySparseLinear(6, 5, nnz=12, dtype=DTYPE, generator=seeded())
        evolution = tts.SparseEvolution(layer, sgd(layer), regrow="gradient")
        evolution.arm()
        layer(x if name == "whole" else x[:4]).square().sum().backward()
        if name == "half":
            other = 2 * layer(x[4:]).detach()
            rest = other.t() @ x[4:]
            evolution.reduce = lambda block, rest=rest: block + rest
        evolution.step()
        grown[name] = positions(layer)
    assert grown["whole"] == grown["half"]


@pytest.mark.parametrize("regrow", ["gradient", "candidate_gradient", "momentum", "random"])
def test_where_nothing_grows_no_rule_is_asked(regrow: str) -> None:
    """At the end of a schedule nothing is replaced: no gradient is needed, and no number drawn."""
    model = network()
    generator = seeded()
    before = generator.get_state()
    evolution = tts.SparseEvolution(
        model, sgd(model), regrow=regrow, fraction=0, generator=generator
    )
    assert evolution.step().regrown == 0
    assert torch.equal(generator.get_state(), before)
