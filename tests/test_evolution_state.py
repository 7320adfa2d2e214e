"""An evolution repeats, resumes, and tells what it did."""

import copy

import pytest
import torch
from evolving_network import (
    everything,
    network,
    same,
    seeded,
    sgd,
    train_step,
)
from torch import Tensor, nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse.evolution import LayerRecord


def run(generator: torch.Generator | None, make_optimizer=sgd, scale: int = 1) -> list[Tensor]:
    model = network(scale=scale)
    optimizer = make_optimizer(model)
    tts.SparseEvolution(model, optimizer, every=2, generator=generator)
    for step in range(5):
        train_step(model, optimizer, seed=step)
    return everything(model, optimizer)


def test_the_default_generator_repeats_with_its_seed() -> None:
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(run(None))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_a_given_generator_repeats_and_leaves_the_default_one_alone() -> None:
    before = torch.get_rng_state()
    results = [run(seeded(seed)) for seed in (1, 1, 2)]
    assert same(results[0], results[1])
    assert not same(results[0], results[2])
    assert torch.equal(torch.get_rng_state(), before)


def adam(model: nn.Module) -> optim.Optimizer:
    return optim.Adam(model.parameters())


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
def test_the_number_of_threads_changes_no_bit(make_optimizer) -> None:
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(run(seeded(), make_optimizer, scale=25))
    assert same(*results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("steps"), "lacks steps"),
        (lambda state: state.update(generator=None), "saved without a generator"),
        (lambda state: state.update(steps=-1), "must not be negative"),
        (lambda state: state.update(history=7), "no history of evolutions"),
        (lambda state: state["history"]["layers"].fill_(-1), "counts nothing"),
        (lambda state: state.update(generator=torch.ones(3)), "no state of a generator"),
        (lambda state: state.update(captured=None), "no captured passes"),
        (
            lambda state: state.update(captured={"2": [[(torch.ones(1, 9), torch.ones(1, 3))]]}),
            "layers of other sizes",
        ),
    ],
    ids=[
        "incomplete",
        "other generator",
        "steps",
        "history",
        "number in the history",
        "bad generator",
        "captured",
        "size of what was captured",
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message) -> None:
    model = network()
    evolution = tts.SparseEvolution(model, sgd(model), generator=seeded())
    evolution.step()
    before = copy.deepcopy(evolution.state_dict())
    history = list(evolution.history)
    state = {**copy.deepcopy(before), "steps": 7, "generator": seeded(5).get_state()}
    change(state)
    with pytest.raises(ValueError, match=message):
        evolution.load_state_dict(state)
    after = evolution.state_dict()
    assert torch.equal(before.pop("generator"), after.pop("generator"))
    assert evolution.history == history
    assert before["steps"] == after["steps"]


def test_a_record_says_what_was_done() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model, optimizer, prune=tts.rules.MagnitudePrune(), fraction=lambda step: step / 10
    )
    for _ in range(2):
        train_step(model, optimizer)
    record = evolution.step()
    assert (record.step, record.fraction) == (2, 0.2)
    assert record.layers == (LayerRecord("0", 14, 14, 72), LayerRecord("2", 8, 8, 40))
    assert (record.pruned, record.regrown) == (22, 22)
    assert str(record) == (
        "evolution after step 2: fraction 0.2, pruned 22, regrown 22\n"
        "  0: -14 +14 of 72\n"
        "  2: -8 +8 of 40"
    )


def test_a_record_of_a_lone_layer_calls_it_the_model() -> None:
    layer = tts.TrulySparseLinear(5, 4, nnz=10)
    evolution = tts.SparseEvolution(
        layer, sgd(layer), prune=tts.rules.MagnitudePrune(), fraction=0.5
    )
    assert str(evolution.step()).endswith("\n  (model): -5 +5 of 10")
