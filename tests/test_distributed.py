"""Ranks that train together hold one topology, and do what one process does with all samples."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import everything, positions, seeded
from several_ranks import needs_gloo, on_ranks
from torch import Tensor, nn, optim
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_module
from torch.nn.parallel import DistributedDataParallel

import torch_truly_sparse as tts

pytestmark = needs_gloo

SAMPLES, STEPS = 16, 8
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: optim.Adam(parameters, lr=0.01),
}
RULES: dict[str, dict[str, Any]] = {
    "set": {},
    "default generator": {"generator": None},
    "rigl": {"prune": "magnitude", "regrow": "gradient"},
    "candidates": {"prune": "random", "regrow": "candidate_gradient"},
    "paths": {"regrow": "cannistraci_hebb"},
    "momentum": {"prune": "magnitude_gradient", "regrow": tts.rules.MomentumRegrow(0.9, 2)},
}

EVERY = list(product(OPTIMIZERS, RULES))
# On four ranks, where each costs twice as much, each rule once.
CASES = {2: EVERY, 4: list(zip(["sgd", "adam", "adam", "sgd", "sgd", "adam"], RULES, strict=True))}


def network(
    seed: int, layer_type: type[tts.nn.SparseLayer] = tts.TrulySparseLinear
) -> nn.Sequential:
    """In float64, so that no rounding decides between two candidates."""
    generator = seeded(seed)
    return nn.Sequential(
        layer_type(12, 20, density=0.3, generator=generator, dtype=torch.float64),
        nn.ReLU(),
        nn.Linear(20, 14, dtype=torch.float64),
        layer_type(14, 5, density=0.4, generator=generator, dtype=torch.float64),
    )


def evolving(
    model: nn.Module, kind: str, rules: dict[str, Any]
) -> tuple[optim.Optimizer, tts.SparseEvolution]:
    optimizer = OPTIMIZERS[kind](model.parameters())
    settings = {"every": 2, "generator": seeded(3), **rules}
    return optimizer, tts.SparseEvolution(model, optimizer, **settings)


def train(
    model: nn.Module, optimizer: optim.Optimizer, share: slice, steps: range = range(STEPS)
) -> None:
    for step in steps:
        x = torch.randn(SAMPLES, 12, generator=seeded(step), dtype=torch.float64)[share]
        y = torch.randn(SAMPLES, 5, generator=seeded(50 + step), dtype=torch.float64)[share]
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def share_of(rank: int, size: int) -> slice:
    return slice(rank * SAMPLES // size, (rank + 1) * SAMPLES // size)


def wrapped(seed: int, layer_type: type[tts.nn.SparseLayer] = tts.TrulySparseLinear) -> Any:
    return DistributedDataParallel(tts.distributed.prepare(network(seed, layer_type)))


def result(model: nn.Module, optimizer: optim.Optimizer, evolution: tts.SparseEvolution) -> Any:
    return [everything(model, optimizer), repr(evolution.history)]


def train_together(rank: int, size: int, folder: Path) -> dict[str, Any]:
    results = {}
    for kind, rule in CASES[size]:
        torch.manual_seed(9 if rank == 0 else 90)
        model = wrapped(rank)
        # Every other case through the module inside.
        target = model.module if kind == "adam" else model
        optimizer, evolution = evolving(target, kind, RULES[rule])
        train(model, optimizer, share_of(rank, size))
        results[f"{kind}, {rule}"] = result(model.module, optimizer, evolution)
    torch.manual_seed(9)
    model = wrapped(rank, tts.MaskedLinear)
    optimizer, evolution = evolving(model, "sgd", RULES["rigl"])
    train(model, optimizer, share_of(rank, size))
    results["masked, rigl"] = result(model.module, optimizer, evolution)
    return results


def train_alone(kind: str, rule: str) -> Any:
    torch.manual_seed(9)
    model = network(0)
    optimizer, evolution = evolving(model, kind, RULES[rule])
    train(model, optimizer, slice(None))
    assert len(evolution.history) == 3
    return result(model, optimizer, evolution)


def assert_close(first: list[Tensor], second: list[Tensor]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        if one.is_floating_point():  # a hundred roundings of sums in another order
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
        else:
            assert torch.equal(one, other)


@pytest.fixture(scope="module")
def on_two(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(train_together, 2, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def on_four(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return on_ranks(train_together, 4, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize(
    ("ranks", "kind", "rule"),
    [(f"on_{name}", *case) for name, size in (("two", 2), ("four", 4)) for case in CASES[size]],
)
def test_ranks_do_what_one_process_does(
    ranks: str, kind: str, rule: str, request: pytest.FixtureRequest
) -> None:
    trained = request.getfixturevalue(ranks)
    tensors, history = train_alone(kind, rule)
    assert history == trained[0][f"{kind}, {rule}"][1]
    assert_close(tensors, trained[0][f"{kind}, {rule}"][0])


def test_the_masked_twin_walks_through_the_same_topologies(on_two: list[Any]) -> None:
    assert on_two[0]["masked, rigl"][1] == on_two[0]["sgd, rigl"][1]
    masks = [tensor for tensor in on_two[0]["masked, rigl"][0] if tensor.dtype == torch.bool]
    topologies = [t for t in on_two[0]["sgd, rigl"][0] if t.dtype == torch.int32]
    assert masks
    for mask, topology in zip(masks, topologies, strict=True):
        assert torch.equal(mask.nonzero().t(), topology)


@pytest.mark.parametrize("ranks", ["on_two", "on_four"])
def test_all_ranks_hold_the_same_bits(ranks: str, request: pytest.FixtureRequest) -> None:
    trained = request.getfixturevalue(ranks)
    for case, (tensors, history) in trained[0].items():
        for other in trained[1:]:
            assert history == other[case][1]
            assert all(map(torch.equal, tensors, other[case][0])), case


# What goes wrong, and what is refused


def error_of(action: Callable[[], Any]) -> str:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


class FailsOnRank1(tts.rules.SignSplitMagnitude):
    def select(self, view: Any, fraction: float, *, generator: torch.Generator | None) -> Tensor:
        if torch.distributed.get_rank() == 1:
            raise ArithmeticError("on purpose")
        return super().select(view, fraction, generator=generator)


class NoisyOnRank1(tts.rules.SignSplitMagnitude):
    """Decides otherwise on rank 1, as if it rounded otherwise."""

    def select(self, view: Any, fraction: float, *, generator: torch.Generator | None) -> Tensor:
        dropped = super().select(view, fraction, generator=generator)
        return dropped.flip(0) if torch.distributed.get_rank() == 1 else dropped


def prepare_many(rank: int) -> dict[str, Any]:
    generator = seeded(rank)
    model = nn.Sequential(
        tts.TrulySparseLinear(9, 8, nnz=20 + 5 * rank, generator=generator),
        nn.BatchNorm1d(8),
        tts.MaskedLinear(8, 6, density=0.5, generator=generator),
        nn.Linear(6, 2),
    )
    nn.init.normal_(model[1].running_mean)
    start = [tensor.clone() for tensor in model.state_dict().values()]
    values = model[0].values
    DistributedDataParallel(tts.distributed.prepare(model))
    assert model[0].values is values
    return {"start": start, "prepared": list(model.state_dict().values())}


def go_wrong(rank: int, size: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"many kinds": prepare_many(rank)}

    def plain() -> Any:
        return DistributedDataParallel(network(0))

    def evolve(model: nn.Module, **settings: Any) -> tts.SparseEvolution:
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        return tts.SparseEvolution(model, optimizer, **settings)

    found["unprepared"] = error_of(lambda: evolve(plain()))
    found["unprepared inside"] = error_of(lambda: evolve(nn.Sequential(plain())))
    late = plain()
    tts.distributed.prepare(late.module)
    found["late"] = error_of(lambda: evolve(late))
    found["wrapped"] = error_of(lambda: tts.distributed.prepare(plain()))
    found["no sparse layer"] = error_of(lambda: tts.distributed.prepare(nn.Linear(2, 2)))
    different = nn.Sequential(tts.TrulySparseLinear(4, 3 + rank, nnz=2))
    found["different"] = error_of(lambda: tts.distributed.prepare(different))
    part = network(0)
    tts.distributed.prepare(part[0])
    found["part"] = error_of(lambda: evolve(part))

    mesh = init_device_mesh("cpu", (size,))
    torch.manual_seed(0)  # the same on all ranks, which is what sharding takes for granted
    whole = network(0)
    sharded = fully_shard(copy.deepcopy(whole), mesh=mesh)
    x = torch.randn(6, 12, dtype=torch.float64, generator=seeded(5))
    found["sharded"] = error_of(lambda: evolve(sharded))
    found["sharded output"] = torch.equal(sharded(x), whole(x))
    found["sharded unsharded"] = error_of(lambda: evolve(sharded))
    distributed = distribute_module(network(0), mesh)
    found["distributed"] = error_of(lambda: evolve(distributed))

    model = wrapped(rank)
    found["buffers sent"] = [tuple(buffer.shape) for buffer in model.modules_buffers]
    found["shrink"] = error_of(lambda: evolve(model, shrink="importance"))
    found["redistribute"] = error_of(lambda: evolve(model, redistribute="momentum"))
    found["released"] = error_of(
        lambda: evolve(tts.distributed.release(copy.deepcopy(model.module)), shrink="importance")
    )

    # Rank 1 alone evolves a copy: nobody need take part.
    found["copied"] = error_of(lambda: evolve(copy.deepcopy(model.module)))
    unprepared = DistributedDataParallel(network(0))
    found["the module inside"] = error_of(lambda: evolve(unprepared.module))
    alone = tts.distributed.release(copy.deepcopy(model.module))
    if rank == 1:
        evolve(alone).step()
    found["copy"] = model.module[0].topology != alone[0].topology
    found["pickle"] = positions(pickle.loads(pickle.dumps(model.module))[0]) == positions(
        model.module[0]
    )

    before = everything(model.module, optim.SGD(model.parameters()))
    found["rule"] = error_of(lambda: evolve(model, prune=FailsOnRank1()).step())
    found["rule changed"] = not all(
        map(torch.equal, before, everything(model.module, optim.SGD(model.parameters())))
    )
    evolve(model, prune=NoisyOnRank1()).step()
    found["noisy"] = positions(model.module[0])

    growing = evolve(model, regrow="gradient")
    growing.arm()
    output = model.module(torch.randn(4, 12, dtype=torch.float64))
    if rank == 0:
        output.sum().backward()
    found["took no part"] = error_of(growing.step)

    if rank == 1:
        model.module[3].reset_topology(generator=seeded(77))
    found["mismatch"] = error_of(evolve(model).step)
    return found


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(go_wrong, 2, tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("unprepared", "ValueError: `model` is wrapped .* layer '0' in it was not prepared"),
        ("unprepared inside", "ValueError: '0' of `model` is wrapped .* layer '0' in it was not"),
        ("late", "ValueError: `model` is wrapped .* was not prepared before"),
        ("wrapped", "TypeError: `model` is in DistributedDataParallel"),
        ("no sparse layer", "ValueError: `model` has no sparse layer"),
        ("different", "ValueError: `model` must be the same on all ranks: .* 3 x 4, rank 1 .* 4 x"),
        ("part", r"ValueError: .* not prepared together \(layer '3' was not at all\)"),
        ("sharded", "TypeError: the weights of layer '0' are sharded"),
        ("sharded unsharded", "TypeError: the weights of layer '0' are sharded"),
        ("distributed", "TypeError: the weights of layer '0' are sharded"),
        ("shrink", "ValueError: the number of connections is fixed by DistributedDataParallel"),
        ("redistribute", "ValueError: the number of connections is fixed by Distributed"),
        ("released", "^no error"),
        ("copied", "ValueError: .* 2 ranks, and layer '0' was not prepared for them"),
        ("the module inside", "ValueError: .* 2 ranks, and layer '0' was not prepared for them"),
        ("took no part", "RuntimeError: layer '0': rank 1 captured no backward pass"),
        ("mismatch", "RuntimeError: layer '3' has another topology on rank 1 than on rank 0"),
    ],
)
def test_all_ranks_are_told(wrong: list[dict[str, Any]], case: str, text: str) -> None:
    for found in wrong:
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(found[case])


def test_an_error_on_one_rank_is_one_on_all(wrong: list[dict[str, Any]]) -> None:
    assert wrong[1]["rule"] == "ArithmeticError: on purpose"
    assert wrong[0]["rule"].startswith("RuntimeError: the evolution failed on rank 1")
    assert not any(found["rule changed"] for found in wrong)


def test_rank_0_decides(wrong: list[dict[str, Any]]) -> None:
    assert wrong[0]["noisy"] == wrong[1]["noisy"]


def test_no_topology_is_sent_at_a_forward_pass(wrong: list[dict[str, Any]]) -> None:
    assert wrong[0]["buffers sent"] == []


def test_sharded_weights_compute_what_whole_ones_do(wrong: list[dict[str, Any]]) -> None:
    assert all(found["sharded output"] for found in wrong)


def test_a_copy_belongs_to_no_group(wrong: list[dict[str, Any]]) -> None:
    assert [found["copy"] for found in wrong] == [False, True]
    assert all(found["pickle"] for found in wrong)


def test_preparing_gives_all_ranks_what_rank_0_has(wrong: list[dict[str, Any]]) -> None:
    ranks = [found["many kinds"] for found in wrong]
    assert not torch.equal(ranks[1]["start"][2], ranks[0]["start"][2])
    for rank in ranks:
        assert all(map(torch.equal, rank["prepared"], ranks[0]["start"]))


def test_without_a_process_group_the_error_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"call torch.distributed.init_process_group"):
        tts.distributed.prepare(network(0))
    with pytest.raises(TypeError, match=r"`model` must be an nn.Module, got int"):
        tts.distributed.prepare(3)  # type: ignore[type-var]


def test_hashes_tell_topologies_apart() -> None:
    layers = [tts.TrulySparseLinear(9, 8, nnz=20, generator=seeded(n)) for n in range(50)]
    assert len({layer.topology.fingerprint() for layer in layers}) == 50
    twin = tts.MaskedLinear.from_sparse(layers[0])
    again = copy.deepcopy(twin)
    assert twin.topology.fingerprint() == again.topology.fingerprint()
