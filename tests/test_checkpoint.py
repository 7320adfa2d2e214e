"""Checkpoint files are whole or not there, and a run goes on from one bit for bit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import everything, network, same, seeded, sgd
from oracles import TESTS
from processes import run_python
from several_ranks import needs_gloo, on_ranks
from torch import nn, optim
from torch.nn.parallel import DistributedDataParallel

import torch_truly_sparse as tts
from torch_truly_sparse.checkpoint import load, newest, resume, save
from torch_truly_sparse.checkpoint.file import FORMAT


class Run:
    """A run with dropout, so that torch's random state matters."""

    def __init__(self, seed: int, regrow: str = "gradient", *, evolves: bool = True) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(*network(seed=seed), nn.Dropout(0.5))
        self.optimizer = optim.Adam(self.model.parameters(), lr=0.01)
        self.schedule = optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.generator = seeded(seed)
        if evolves:
            self.evolution = tts.SparseEvolution(
                self.model, self.optimizer, regrow=regrow, every=2, generator=seeded(seed)
            )

    def train(self, steps: int) -> None:
        for _ in range(steps):
            x = torch.randn(8, 12, generator=self.generator)
            self.optimizer.zero_grad()
            self.model(x).square().mean().backward()
            self.optimizer.step()
            self.schedule.step()

    @property
    def parts(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "evolution": self.evolution,
            "schedule": self.schedule,
            "generator": self.generator,
        }

    def result(self) -> list[torch.Tensor]:
        tensors = everything(self.model, self.optimizer)
        return [*tensors, self.generator.get_state(), torch.get_rng_state()]


@pytest.mark.parametrize("stop", range(6))
@pytest.mark.parametrize("regrow", ["random", "gradient", "momentum"])
def test_a_resumed_run_equals_one_that_never_stopped(
    stop: int, regrow: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.pt"
    whole = Run(0, regrow)
    whole.train(stop)
    assert save(path, **whole.parts, epoch=stop, notes={"seeds": [1, 2]}) == path
    whole.train(6 - stop)
    expected = whole.result()
    resumed = Run(1, regrow)
    rest = resume(path, **resumed.parts)
    assert rest == {"epoch": stop, "notes": {"seeds": [1, 2]}}
    resumed.train(6 - stop)
    assert same(expected, resumed.result())
    assert whole.evolution.history == resumed.evolution.history


def test_a_file_is_read_without_executing_anything(tmp_path: Path) -> None:
    run = Run(0)
    path = save(tmp_path / "run.pt", **run.parts, tensor=torch.ones(2))
    content = load(path)
    assert sorted(content) == ["format", "model", "optimizer", "ranks"]
    assert torch.equal(content["ranks"][0]["extra"]["tensor"], torch.ones(2))
    other = network(seed=5)
    other.load_state_dict(content["model"])
    assert torch.equal(other[0].values, run.model[0].values)


# Files


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    save(path, model=network(), epoch=1)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="cannot hold objects of pathlib"):
        save(path, model=network(), folder=tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_while_writing_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.pt"
    save(path, model=network(), epoch=1)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save(path, model=network(), epoch=2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from evolving_network import network
from torch_truly_sparse.checkpoint import save
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
save({path!r}, model=network(seed=3), epoch=2)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_process_killed_while_it_writes_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = save(tmp_path / "epoch_1.pt", model=network(), epoch=1)
    before = path.read_bytes()
    script = KILLED.format(tests=str(TESTS), path=str(path))
    done = run_python("-c", script, cwd=tmp_path)
    assert done.returncode == -9, done.stderr
    assert path.read_bytes() == before
    assert newest(tmp_path / "*") == path


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    assert newest(tmp_path / "epoch_*.pt") is None
    paths = [save(tmp_path / f"epoch_{n}.pt", model=network(), epoch=n) for n in (9, 10, 11, 100)]
    assert newest(tmp_path / "epoch_*.pt") == paths[3]
    whole = paths[3].read_bytes()
    paths[3].write_bytes(whole[: len(whole) // 2])
    torch.save(network().state_dict(), paths[2])
    (tmp_path / "epoch_101.pt").mkdir()
    assert newest(tmp_path / "epoch_*.pt") == paths[1]


def test_the_last_are_kept_and_foreign_files_left_alone(tmp_path: Path) -> None:
    foreign = [tmp_path / name for name in ("epoch_0.pt", "epoch_x.pt", "other_1.pt")]
    torch.save({"format": "another"}, foreign[0])
    foreign[1].write_text("no checkpoint")
    save(foreign[2], model=network())
    for epoch in range(1, 13):
        save(tmp_path / f"epoch_{epoch}.pt", model=network(), keep=3)
    left = {path.name for path in tmp_path.iterdir()} - {path.name for path in foreign}
    assert left == {"epoch_10.pt", "epoch_11.pt", "epoch_12.pt"}
    assert all(path.exists() for path in foreign)


@pytest.mark.parametrize(
    ("keep", "name", "error", "text"),
    [
        (0, "epoch_1.pt", ValueError, "`keep` must be at least 1, got 0"),
        (True, "epoch_1.pt", TypeError, "`keep` must be an int, got bool"),
        (2, "epoch.pt", ValueError, "needs a number in the name of the file, got 'epoch.pt'"),
    ],
)
def test_keep_is_checked(keep: Any, name: str, error: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=text):
        save(tmp_path / name, model=network(), keep=keep)
    assert not list(tmp_path.iterdir())


# Nothing is changed by a file that does not fit


def flipped(content: bytes) -> bytes:
    """One bit of the weights, in the middle of the file."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-100],
    "half": lambda content: content[: len(content) // 2],
    "one bit": flipped,
    "text": lambda content: b"no checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_changes_nothing(damage: str, tmp_path: Path) -> None:
    path = save(tmp_path / "run.pt", **Run(0).parts)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    run = Run(1)
    run.train(3)
    before = run.result()
    with pytest.raises(ValueError, match=r"run.pt' is no complete checkpoint"):
        resume(path, **run.parts)
    assert same(before, run.result())


def test_foreign_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    with pytest.raises(FileNotFoundError):
        load(path)
    torch.save(network().state_dict(), path)
    with pytest.raises(ValueError, match=r"tts.checkpoint.save did not write it"):
        load(path)
    torch.save({"format": FORMAT}, path)
    with pytest.raises(ValueError, match="it lacks model, optimizer, ranks"):
        load(path)
    torch.save(network(), path)  # a pickle of classes
    with pytest.raises(ValueError, match="no complete checkpoint"):
        load(path)


def test_a_state_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    saved = Run(0)
    saved.train(3)
    wider = nn.Sequential(*network(seed=0)[:2], tts.TrulySparseLinear(21, 5, density=0.3))
    run = Run(1)
    run.train(3)
    before = run.result()
    history = list(run.evolution.history)

    path = save(tmp_path / "wider.pt", model=wider)
    with pytest.raises(Exception, match=r"(?i)indices|shape"):
        resume(path, model=run.model)  # the first layer fits, the last does not
    assert same(before, run.result())

    groups = optim.Adam([{"params": [p]} for p in saved.model.parameters()])
    path = save(tmp_path / "groups.pt", model=saved.model, optimizer=groups)
    with pytest.raises(ValueError, match="parameter group"):
        resume(path, model=run.model, optimizer=run.optimizer)
    assert same(before, run.result())

    path = save(tmp_path / "evolution.pt", **{**saved.parts, "evolution": saved.schedule})
    with pytest.raises(ValueError, match="`state` lacks"):
        resume(path, **run.parts)
    assert same(before, run.result())
    assert run.evolution.history == history

    path = save(tmp_path / "less.pt", model=saved.model)
    with pytest.raises(ValueError, match=r"less.pt' was saved without `optimizer`"):
        resume(path, model=run.model, optimizer=run.optimizer)
    with pytest.raises(ValueError, match=r"less.pt' was saved without `scaler`"):
        resume(path, model=run.model, scaler=run.schedule)
    path = save(tmp_path / "number.pt", model=saved.model, epoch=3)
    with pytest.raises(TypeError, match="only an object with `load_state_dict`"):
        resume(path, model=run.model, epoch=0)
    assert same(before, run.result())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(ranks=[]), "must be a list of dictionaries, got an empty"),
        (lambda content: content["ranks"][0].pop("random"), "must be a dictionary of evolution"),
        (lambda content: content["ranks"][0].update(extra=3), "must be a dictionary, got int"),
        (lambda content: content["ranks"][0].update(random=torch.ones(9)), "`random` does not fit"),
        (lambda content: content.update(optimizer={"state": {}}), "`optimizer` does not fit"),
        (lambda content: content.update(model="text"), "`model` does not fit"),
    ],
)
def test_other_contents_than_were_saved_change_nothing(change, message, tmp_path: Path) -> None:
    path = save(tmp_path / "run.pt", **Run(0).parts)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    run = Run(1)
    run.train(3)
    before = run.result()
    with pytest.raises(ValueError, match=message):
        resume(path, **run.parts)
    assert same(before, run.result())


def test_the_size_of_layers_comes_from_the_file(tmp_path: Path) -> None:
    saved = tts.TrulySparseLinear(12, 20, nnz=17)
    path = save(tmp_path / "layer.pt", model=saved)
    model = tts.TrulySparseLinear(12, 20, nnz=50)
    optimizer = sgd(model)
    resume(path, model=model)
    assert model.nnz == 17
    assert optimizer.param_groups[0]["params"][0] is model.values


def test_a_compiled_model_is_saved_as_the_one_inside(tmp_path: Path) -> None:
    model, other = network(seed=0), network(seed=1)
    path = save(tmp_path / "1.pt", model=torch.compile(model, backend="eager"))
    resume(path, model=other)
    assert same(list(model.state_dict().values()), list(other.state_dict().values()))
    path = save(tmp_path / "2.pt", model=network(seed=2))
    resume(path, model=torch.compile(other, backend="eager"))
    assert not same(list(model.state_dict().values()), list(other.state_dict().values()))


# Ranks


def train_and_stop(rank: int, size: int, folder: Path) -> dict[str, Any]:
    def start(seed: int) -> Run:
        run = Run(seed, evolves=False)
        run.model = DistributedDataParallel(tts.distributed.prepare(run.model))
        run.evolution = tts.SparseEvolution(
            run.model,
            run.optimizer,
            regrow=tts.rules.MomentumRegrow(0.9, 2),
            every=3,
            generator=seeded(seed),
        )
        run.generator = seeded(10 * seed + rank)
        torch.manual_seed(20 * seed + rank)
        return run

    whole = start(0)
    whole.train(3)
    path = folder / "epoch_3.pt"
    save(path, **whole.parts, rank=rank)  # with what each rank has captured
    assert path.exists()
    whole.train(4)
    resumed = start(1)
    rest = resume(path, **resumed.parts)
    resumed.train(4)
    compiled = torch.compile(whole.model, backend="eager")
    save(folder / "compiled_1.pt", model=compiled, rank=rank)
    of_compiled = load(folder / "compiled_1.pt")
    found: dict[str, Any] = {
        "compiled": [sorted(of_compiled["model"]), len(of_compiled["ranks"])],
        "plain": sorted(load(path)["model"]),
        "same": same(whole.result(), resumed.result()),
        "history": whole.evolution.history == resumed.evolution.history,
        "evolutions": len(whole.evolution.history),
        "rest": rest,
    }
    for name, action in {
        "unwritable": lambda: save(folder / "no" / "epoch_1.pt", model=whole.model),
        "alone": lambda: resume(path, model=network()),
    }.items():
        try:
            action()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


@needs_gloo
def test_ranks_save_and_resume_together(tmp_path: Path) -> None:
    for rank, found in enumerate(on_ranks(train_and_stop, 2, tmp_path)):
        assert found["same"]
        assert found["history"]
        assert found["evolutions"] == 2
        assert found["rest"] == {"rank": rank}
        assert found["compiled"] == [found["plain"], 2]
        error = "FileNotFoundError" if rank == 0 else "RuntimeError: rank 0 could not save"
        assert found["unwritable"].startswith(error)
        assert "was saved by 2 ranks, and this is a run of 1" in found["alone"]
