"""Growth by gradient finds what a dense gradient would show, without one."""

import threading
from concurrent.futures import ThreadPoolExecutor

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
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse.evolution import CapturedGradient, LayerView, captured_gradient
from torch_truly_sparse.evolution.largest_gradients import largest_empty_positions

DTYPE = torch.float64


def by_sorting(dense: Tensor, occupied: Tensor, count: int) -> list[int]:
    """The oracle: sort all empty positions by |gradient|, of equal ones the first ones first."""
    empty = sorted(set(range(dense.numel())) - set(occupied.tolist()))
    magnitudes = dense.flatten().abs().nan_to_num(nan=0.0, posinf=torch.inf).tolist()
    return sorted(sorted(empty, key=lambda p: -magnitudes[p])[:count])


def gradient_of(dense: Tensor) -> CapturedGradient:
    """A gradient that is a given matrix, by way of one pass with an identity for its input."""
    out_features, in_features = dense.shape
    eye = torch.eye(in_features, dtype=dense.dtype)
    return CapturedGradient([(dense.t(), eye)], [1.0], out_features, in_features)


SHAPES = [(7, 5), (1, 40), (40, 1), (1, 1), (13, 16), (0, 3), (3, 0)]


@pytest.mark.parametrize("block", [1, 16, 40, 2**18])
@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "zero", "increasing"])
def test_the_largest_are_those_of_the_whole_gradient(size, kind, block, monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", block)
    generator = seeded()
    dense = {
        "normal": torch.randn(size, dtype=DTYPE, generator=generator),
        "ties": torch.randint(-2, 3, size, generator=generator).to(DTYPE),
        "equal": torch.full(size, -0.5, dtype=DTYPE),
        "zero": torch.zeros(size, dtype=DTYPE),
        "increasing": torch.arange(size[0] * size[1], dtype=DTYPE).view(size),
    }[kind]
    population = dense.numel()
    for taken in {0, population // 3, population}:
        occupied = torch.randperm(population, generator=generator)[:taken].sort().values
        for count in {
            0,
            1,
            (population - taken) // 4,
            (population - taken) // 2,
            population - taken,
        }:
            if count > population - taken:
                continue
            found = largest_empty_positions(gradient_of(dense), occupied, count)
            assert found.dtype == torch.int64
            assert found.tolist() == by_sorting(dense, occupied, count)


def test_more_than_the_empty_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="`count` must be at most the 2 empty positions, got 3"):
        largest_empty_positions(gradient_of(torch.ones(2, 3)), torch.arange(4), 3)


def test_several_passes_add_up_scaled() -> None:
    generator = seeded()
    passes = [
        (torch.randn(4, 7, generator=generator), torch.randn(4, 5, generator=generator))
        for _ in range(3)
    ]
    gradient = CapturedGradient(passes, [1.0, 0.5, -2.0], 7, 5, reduce=lambda block: block * 2)
    dense = 2 * sum(
        scale * dy.t() @ x for scale, (dy, x) in zip([1.0, 0.5, -2.0], passes, strict=True)
    )
    blocks = torch.cat([block for _, block in gradient.blocks()])
    torch.testing.assert_close(blocks, dense)
    some = torch.tensor([0, 3, 4, 17, 34])
    torch.testing.assert_close(gradient.at(some), dense.flatten()[some])


def test_blocks_share_one_buffer_of_bounded_size() -> None:
    gradient = CapturedGradient([(torch.ones(1, 1000), torch.ones(1, 3000))], [1.0], 1000, 3000)
    pointers = set()
    for first, block in gradient.blocks():
        pointers.add(block.data_ptr())
        assert block.numel() <= captured_gradient.BLOCK
        rows = first + block.shape[0]
    assert rows == 1000
    assert len(pointers) == 1


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("size", [(7, 5000), (300, 64)], ids=str)
def test_the_number_of_threads_changes_no_bit(size: tuple[int, int]) -> None:
    generator = seeded()
    passes = [[torch.randn(128, width, generator=generator) for width in size] for _ in range(2)]
    gradient = CapturedGradient([(dy, x) for dy, x in passes], [1.0, 0.9], *size)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(torch.cat([block.clone() for _, block in gradient.blocks()]))
        assert torch.get_num_threads() == threads
    assert all(torch.equal(results[0], result) for result in results)


@pytest.mark.usefixtures("_restores_threads")
def test_the_number_of_threads_changes_no_choice(monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", 300)
    generator = seeded()
    passes = [[torch.randn(8, width, generator=generator) for width in (70, 60)] for _ in range(2)]
    gradient = CapturedGradient([(dy.round(), x.round()) for dy, x in passes], [1.0, 1.0], 70, 60)
    occupied = torch.arange(0, 4200, 3)
    dense = sum(dy.t() @ x for dy, x in gradient.passes)
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found = largest_empty_positions(gradient, occupied, 500)
        assert found.tolist() == by_sorting(dense, occupied, 500)
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("_restores_threads")
def test_blocks_on_threads_come_in_order_from_bounded_memory(monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", 30)
    gradient = CapturedGradient([(torch.ones(1, 300), torch.ones(1, 10))], [1.0], 300, 10)
    torch.set_num_threads(3)
    seen = []

    def note(first: int, block: Tensor) -> int:
        seen.append((block.data_ptr(), threading.get_ident(), torch.get_num_threads()))
        return first

    assert list(gradient.map_blocks(note)) == list(range(0, 300, 3))
    buffers, workers, threads = map(set, zip(*seen, strict=True))
    assert len(buffers) <= 3
    assert 1 <= len(workers) <= 3
    assert threading.get_ident() not in workers
    assert threads == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("leave", ["error", "early"])
def test_threads_end_and_leave_torch_as_it_was(leave: str, monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", 30)
    gradient = CapturedGradient([(torch.ones(1, 300), torch.ones(1, 10))], [1.0], 300, 10)
    torch.set_num_threads(3)
    before = threading.active_count()

    def stop(first: int, block: Tensor) -> None:
        if leave == "error" and first >= 60:
            raise KeyError("no such block")

    blocks = gradient.map_blocks(stop)
    if leave == "error":
        with pytest.raises(KeyError, match="no such block"):
            list(blocks)
    else:
        next(blocks)
        blocks.close()
    assert threading.active_count() == before
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as newcomer:  # torch gives it the number that was set last
        assert newcomer.submit(torch.get_num_threads).result() == 3


@pytest.mark.usefixtures("_restores_threads")
def test_sums_across_processes_keep_to_one_thread_and_their_order(monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", 30)
    summed = []

    def reduce(block: Tensor) -> Tensor:
        summed.append((threading.get_ident(), int(block[0, 0])))
        return block

    rows = torch.arange(300.0)[None]
    gradient = CapturedGradient([(rows, torch.ones(1, 10))], [1.0], 300, 10, reduce)
    torch.set_num_threads(3)
    assert list(gradient.map_blocks(lambda first, block: first)) == list(range(0, 300, 3))
    assert summed == [(threading.get_ident(), first) for first in range(0, 300, 3)]


# As rules of an evolution


def dense_gradient(layer: tts.SparseLayer, passes: list[tuple[Tensor, Tensor]]) -> Tensor:
    return sum(dy.reshape(-1, layer.out_features).t() @ x.flatten(0, -2) for x, dy in passes)


class Watched(nn.Module):
    """Notes input and output gradient of a layer at every pass: the oracle's own capture."""

    def __init__(self, layer: tts.SparseLayer) -> None:
        super().__init__()
        self.layer = layer
        self.passes: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if y.requires_grad:
            x = x.detach()
            y.register_hook(lambda dy: self.passes.append((x, dy)))
        return y


def watched_network(layer_type: type[tts.SparseLayer]) -> nn.Sequential:
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
    for regrow in (tts.GradientRegrow(), tts.CandidateGradientRegrow(candidates=100)):
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
        regrow=tts.CandidateGradientRegrow(candidates=2.0),
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
        model, optimizer, regrow=tts.MomentumRegrow(momentum, steps), fraction=0.5, every=5
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
        (lambda: tts.CandidateGradientRegrow(0), ValueError, "`candidates` must be a finite"),
        (lambda: tts.CandidateGradientRegrow(torch.inf), ValueError, "`candidates` must be a fin"),
        (lambda: tts.MomentumRegrow(1.0), ValueError, r"`momentum` must lie in \[0, 1\), got 1.0"),
        (lambda: tts.MomentumRegrow(0.9, 0), ValueError, "`steps` must be at least 1, got 0"),
        (lambda: tts.MomentumRegrow(0.9, 2.0), TypeError, "`steps` must be an int, got float"),
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
