"""A run that stops anywhere and goes on from its saved state equals one that never stopped."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import (
    both_twins,
    everything,
    network,
    positions,
    same,
    seeded,
    sgd,
    train_step,
)
from oracles import TESTS
from processes import run_python
from torch import Tensor, nn, optim

import torch_truly_sparse as tts
from torch_truly_sparse import rules, schedules

STEPS = 9
OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {
    "sgd": lambda p, **s: optim.SGD(p, lr=0.05, momentum=0.9, **s),
    "adam": lambda p, **s: optim.Adam(p, lr=0.01, **s),
    "adamw": lambda p, **s: optim.AdamW(p, lr=0.01, amsgrad=True, **s),
    "rmsprop": lambda p, **s: optim.RMSprop(p, lr=0.01, momentum=0.5, **s),
    "adagrad": lambda p, **s: optim.Adagrad(p, lr=0.05, **s),
}
FORMS = [
    (kind, form)
    for kind in OPTIMIZERS
    for form in ("foreach", "fused", "plain")
    if not (kind == "rmsprop" and form == "fused")
]


@dataclass
class Run:
    """A model, what trains it, and what evolves it."""

    model: nn.Module
    optimizer: optim.Optimizer
    evolution: tts.SparseEvolution
    scaler: torch.amp.GradScaler | None = None
    batches: int = 1
    gain: float = 1.0

    def train(self, first: int, last: int) -> None:
        width = next(self.model.modules())[0].in_features
        for step in range(first, last):
            self.optimizer.zero_grad()
            for batch in range(self.batches):
                x = torch.randn(8, width, generator=seeded(10 * step + batch))
                loss = self.gain * self.model(x).square().mean()
                if self.scaler is None:
                    loss.backward()
                else:
                    self.scaler.scale(loss).backward()
            if self.scaler is None:
                self.optimizer.step()
            else:
                self.scaler.step(self.optimizer)
                self.scaler.update()

    @property
    def parts(self) -> list[Any]:
        parts = [self.model, self.optimizer, self.evolution]
        return parts if self.scaler is None else [*parts, self.scaler]

    def result(self) -> tuple[list[Tensor], Any]:
        return everything(self.model, self.optimizer), self.evolution.history

    def save(self, path: Path) -> None:
        states = [part.state_dict() for part in self.parts]
        torch.save([*states, torch.get_rng_state()], path)

    def load(self, path: Path) -> None:
        *states, default = torch.load(path, weights_only=True)
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
        torch.set_rng_state(default)


def check(start: Callable[[int], Run], path: Path, stops: range = range(STEPS)) -> Run:
    """Compare a whole run with those that stopped after each number of steps."""
    torch.manual_seed(5)
    whole = start(0)
    for step in range(STEPS):
        whole.save(path / f"{step}.pt")
        whole.train(step, step + 1)
    expected, history = whole.result()
    for stop in stops:
        torch.manual_seed(99)
        resumed = start(99)
        resumed.load(path / f"{stop}.pt")
        resumed.train(stop, STEPS)
        tensors, records = resumed.result()
        assert same(expected, tensors), f"stopped after {stop}"
        assert history == records
    return whole


def evolving(
    make: Callable[..., optim.Optimizer],
    own_generator: bool = True,
    layer_type: type[tts.nn.SparseLayer] = tts.TrulySparseLinear,
    **settings: Any,
) -> Callable[[int], Run]:
    def start(seed: int) -> Run:
        model = network(layer_type, seed=seed)
        optimizer = make(model.parameters())
        generator = seeded(seed) if own_generator else None
        evolution = tts.SparseEvolution(
            model, optimizer, **{"every": 2, **settings}, generator=generator
        )
        return Run(model, optimizer, evolution)

    return start


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_optimizers_in_every_form(kind: str, form: str, tmp_path: Path) -> None:
    options = {} if form == "plain" else {form: True}
    whole = check(evolving(lambda p: OPTIMIZERS[kind](p, **options)), tmp_path, range(0, STEPS, 3))
    assert len(whole.evolution.history) == 4


@pytest.mark.parametrize("own_generator", [True, False])
def test_either_source_of_randomness(own_generator: bool, tmp_path: Path) -> None:
    check(evolving(OPTIMIZERS["sgd"], own_generator), tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {"regrow": "gradient", "prune": "magnitude"},
        {"regrow": "gradient", "every": 1},
        {"regrow": "candidate_gradient", "prune": "random"},
        {"regrow": "cannistraci_hebb"},
        {"regrow": rules.MomentumRegrow(0.9, 3), "every": 4},
        {"regrow": rules.MomentumRegrow(0.9, 3), "every": 2},
        {"prune": "magnitude_gradient"},
        {"redistribute": "momentum"},
        {"redistribute": "momentum", "regrow": "momentum", "every": 3},
        {"shrink": rules.GradualMagnitude(0.1, 8, initial_density=0.3)},
        {"shrink": rules.ImportancePrune(20, every=2, start=0), "redistribute": "momentum"},
        {"fraction": schedules.Cosine(0.5, 7), "stop": 6},
        {"fraction": schedules.ByEpoch(schedules.Linear(0.5, 4), 2)},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_every_rule_at_every_step(settings, kind: str, tmp_path: Path) -> None:
    whole = check(evolving(OPTIMIZERS[kind], **settings), tmp_path)
    assert any(record.pruned for record in whole.evolution.history)


@both_twins
def test_both_kinds_of_layer_change_size_and_resume(layer_type, tmp_path: Path) -> None:
    shrink = rules.GradualMagnitude(0.1, 8, initial_density=0.3)
    start = evolving(OPTIMIZERS["adam"], layer_type=layer_type, shrink=shrink, regrow="gradient")
    check(start, tmp_path, range(0, STEPS, 2))


@pytest.mark.parametrize("regrow", ["random", "gradient"])
def test_gradient_accumulation(regrow: str, tmp_path: Path) -> None:
    def start(seed: int) -> Run:
        run = evolving(OPTIMIZERS["adam"], regrow=regrow)(seed)
        run.batches = 3
        return run

    whole = check(start, tmp_path)
    assert whole.evolution.steps == STEPS


def test_several_parameter_groups(tmp_path: Path) -> None:
    def start(seed: int) -> Run:
        model = network(seed=seed)
        groups = [
            {"params": [model[0].values], "weight_decay": 0.1},
            {"params": [model[2].values], "lr": 0.003},
            {"params": [model[0].bias, model[2].bias], "amsgrad": True},
        ]
        optimizer = optim.AdamW(groups, lr=0.01)
        evolution = tts.SparseEvolution(
            model, optimizer, every=2, redistribute="momentum", generator=seeded(seed)
        )
        return Run(model, optimizer, evolution)

    check(start, tmp_path)


# torch.amp.GradScaler


def scaled(fused: bool, regrow: str) -> Callable[[int], Run]:
    def start(seed: int) -> Run:
        run = evolving(lambda p: OPTIMIZERS["adam"](p, fused=fused), regrow=regrow)(seed)
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=2)
        run.gain = 1000.0  # overflows at this scale, and again whenever the scale has grown
        return run

    return start


@pytest.mark.parametrize("regrow", ["random", "gradient"])
@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_a_scaler_skips_do_not_count(fused: bool, regrow: str, tmp_path: Path) -> None:
    run = scaled(fused, regrow)(0)
    made = 0
    for step in range(60):
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        run.train(step, step + 1)
        made += not same(before, list(run.model.parameters()))
        assert run.evolution.steps == made
    assert 2 < made < 60, "the scaler must both skip and not skip"
    assert [record.step for record in run.evolution.history] == list(range(3, made + 1, 2))


@pytest.mark.parametrize("fused", [False, True])
def test_growth_after_a_skipped_step_reads_the_step_that_was_made(fused: bool) -> None:
    """The scale overflows in the armed step; the batch that is trained on next decides."""
    grown = []
    for poisoned in (False, True):
        model = network()
        optimizer = optim.Adam(model.parameters(), fused=fused)
        evolution = tts.SparseEvolution(
            model, optimizer, prune="magnitude", regrow="gradient", every=1
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for batch in [0] + [None] * poisoned + [1]:
            x = torch.randn(16, 12, generator=seeded(batch or 0))
            optimizer.zero_grad()
            loss = model(x).square().mean() * (1 if batch is not None else torch.inf)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert [record.step for record in evolution.history] == [2]
        grown.append([positions(model[0]), positions(model[2])])
    assert grown[0] == grown[1]


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_run_resumes(fused: bool, tmp_path: Path) -> None:
    def start(seed: int) -> Run:
        run = scaled(fused, "gradient")(seed)
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
        return run

    check(start, tmp_path)


# Into what a state is loaded


FRESH_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_resume import OPTIMIZERS, STEPS, evolving
run = evolving(OPTIMIZERS["adam"], redistribute="momentum", regrow="gradient")(7)
run.load(Path({saved!r}))
run.train(5, STEPS)
torch.save([run.result()[0], repr(run.evolution.history)], {result!r})
"""


def test_a_fresh_process_goes_on(tmp_path: Path) -> None:
    whole = evolving(OPTIMIZERS["adam"], redistribute="momentum", regrow="gradient")(0)
    whole.train(0, 5)
    saved, result = tmp_path / "saved.pt", tmp_path / "result.pt"
    whole.save(saved)
    whole.train(5, STEPS)
    script = FRESH_PROCESS.format(tests=str(TESTS), saved=str(saved), result=str(result))
    done = run_python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tensors, history = torch.load(result, weights_only=True)
    expected, records = whole.result()
    assert same(expected, tensors)
    assert history == repr(records)


def test_a_model_of_another_size_takes_the_saved_one() -> None:
    """The receiver has trained and evolved on its own, to other numbers of connections."""
    runs = [
        evolving(OPTIMIZERS["adam"], shrink=rules.GradualMagnitude(density, 4, 0.3))(seed)
        for seed, density in ((0, 0.1), (1, 0.2))
    ]
    for run in runs:
        run.train(0, 6)
    first, second = runs
    assert first.model[0].nnz != second.model[0].nnz
    for part, other in zip(second.parts, first.parts, strict=True):
        part.load_state_dict(copy.deepcopy(other.state_dict()))
    second.evolution.shrink = first.evolution.shrink
    for run in runs:
        run.train(6, STEPS)
    assert same(first.result()[0], second.result()[0])


def through_torch_save(parts: object) -> object:
    file = io.BytesIO()
    torch.save(parts, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("travel", [copy.deepcopy, through_torch_save])
@pytest.mark.parametrize("regrow", ["random", "gradient", "momentum"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_what_is_copied_together_goes_on_alike(travel, regrow, order) -> None:
    run = evolving(OPTIMIZERS["sgd"], regrow=regrow)(0)
    run.train(0, 2)  # armed
    travelled = travel([(run.model, run.optimizer, run.evolution)[part] for part in order])
    other = Run(*(travelled[order.index(part)] for part in range(3)))
    assert len(other.optimizer._optimizer_step_post_hooks) == 1
    run.train(2, 5)
    assert other.evolution.steps == 2  # the two do not know each other
    other.train(2, 5)
    assert same(run.result()[0], other.result()[0])
    assert other.evolution.history == run.evolution.history
    assert len(other.evolution.history) == 2
    other.evolution.load_state_dict(other.evolution.state_dict())
    other.train(5, 6)
    assert other.evolution.steps == 6, "loading must not hook twice"
    removed = travel(run.evolution)
    removed.remove()
    assert not travel(removed)._optimizer._optimizer_step_post_hooks


def test_a_removed_evolution_stays_removed() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(model, optimizer, every=1)
    evolution.remove()
    evolution.load_state_dict(evolution.state_dict())
    for _ in range(3):
        train_step(model, optimizer)
    assert evolution.steps == 0
    assert not optimizer._optimizer_step_post_hooks
