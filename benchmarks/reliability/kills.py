"""Training that is killed at random moments and goes on: it ends as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # every optimizer imports it: better once than in each child
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse.checkpoint import newest, resume, save

from .children import Outcome
from .states import same

STEPS = 60
EVERY = 5  # steps between two checkpoints, and between two evolutions
KEPT = 2


class Run:
    """A network that trains, evolves and saves itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.generator = torch.Generator().manual_seed(1)
        g = torch.Generator().manual_seed(0)
        self.model = nn.Sequential(
            tts.TrulySparseLinear(200, 300, nnz=3000, generator=g),
            nn.ReLU(),
            nn.Dropout(0.2),
            tts.TrulySparseLinear(300, 5, nnz=300, generator=g),
        )
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.evolution = tts.SparseEvolution(
            self.model,
            self.optimizer,
            regrow="gradient",
            every=EVERY,
            generator=torch.Generator().manual_seed(2),
        )

    @property
    def parts(self) -> dict[str, Any]:
        """All that a checkpoint holds."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "evolution": self.evolution,
            "generator": self.generator,
        }

    def train(self) -> None:
        """Go on from the last checkpoint, if there is one, to the end."""
        torch.manual_seed(3)
        path = newest(self.folder / "step_*.pt")
        done = 0 if path is None else resume(path, **self.parts)["step"]
        for step in range(done, STEPS):
            x = torch.randn(16, 200, generator=self.generator)
            self.optimizer.zero_grad()
            self.model(x).square().mean().backward()
            self.optimizer.step()
            if (step + 1) % EVERY == 0:
                path = self.folder / f"step_{step + 1}.pt"
                save(path, step=step + 1, keep=KEPT, **self.parts)

    def content(self) -> list[Any]:
        """Return all that two runs must have in common at their end, to the bit."""
        parts = (self.model, self.optimizer, self.evolution)
        return [*(part.state_dict() for part in parts), self.generator.get_state()]


def run(seeds: range) -> Outcome:
    """Kill training runs as often as there are seeds, and compare each run at its end."""
    torch.set_num_threads(1)
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        reference, seconds = _uninterrupted(Path(folder))
    seed = seeds.start
    while seed < seeds.stop:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            started = seed
            while seed < seeds.stop and not _ended(path):
                killed = _killed(path, random.Random(seed).uniform(0, 0.7 * seconds))
                if killed:
                    outcome.add(seed, "killed and resumed")
                    seed += 1
            line = _compare(path, reference)
            if line:
                outcome.add(started, line)
            else:
                outcome.counts["runs that ended as the uninterrupted one"] += 1
    return outcome


def _uninterrupted(folder: Path) -> tuple[list[Any], float]:
    """Train once without a kill; in a child, for a process that has trained cannot fork one."""
    started = time.monotonic()
    _check_ended(_forked(lambda: _finish(folder)))
    seconds = time.monotonic() - started
    return torch.load(folder / "end", weights_only=True), seconds


def _finish(folder: Path) -> None:
    run = Run(folder)
    run.train()
    torch.save(run.content(), folder / "end")


def _forked(job: Callable[[], None]) -> int:
    """Do a job in a child process; returns its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            job()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return child


def _check_ended(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"training ended with status {status}; its error is above")


def _ended(folder: Path) -> bool:
    return (folder / f"step_{STEPS}.pt").exists()


def _killed(folder: Path, seconds: float) -> bool:
    """Train in a child process and kill it after a time; returns whether it was still at work."""
    child = _forked(lambda: Run(folder).train())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise RuntimeError(f"training failed with status {status}; its error is above")
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _compare(folder: Path, reference: list[Any]) -> str | None:
    """Let a run end, and say what is wrong with it, if anything."""
    try:
        _check_ended(_forked(lambda: _finish(folder)))
    except RuntimeError as error:
        return f"WRONG: a run cannot go on: {error}"
    if not same(reference, torch.load(folder / "end", weights_only=True)):
        return "WRONG: a run ended otherwise than the uninterrupted one"
    return None
