"""Runs many small trials in child processes, so that one that dies is seen and not suffered."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Trial = Callable[[int], str]
"""Does what a seed says, and returns in one line what came of it."""

PATIENCE = 120.0
"""Seconds after which a trial that has said nothing counts as hung."""

BAD = ("WRONG", "CRASHED", "HUNG", "RAISED")
"""How the lines begin that say that something is not as it should be."""


@dataclass
class Outcome:
    """What came of many trials.

    Attributes:
        counts: how often each line came, without what follows a colon.
        bad: the seed and the line of each trial that should not have ended so.
    """

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[tuple[int, str]] = field(default_factory=list)

    def add(self, seed: int, line: str) -> None:
        """Count one trial."""
        self.counts[line.partition(":")[0]] += 1
        if line.startswith(BAD):
            self.bad.append((seed, line))


def run_trials(trial: Trial, seeds: range, *, batch: int = 250) -> Outcome:
    """Run a trial for each seed, a batch of them in each child process.

    After a trial that killed its child, or hung, the next child goes on with the seed after it.
    """
    outcome = Outcome()
    start = seeds.start
    while start < seeds.stop:
        stop = min(start + batch, seeds.stop)
        for seed, line in _in_child(trial, range(start, stop)):
            outcome.add(seed, line)
            start = seed + 1
    return outcome


def _in_child(trial: Trial, seeds: range) -> Iterator[tuple[int, str]]:
    """Yield the seed and the line of each trial; one that ended the child comes last."""
    source, sink = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(source)
        for seed in seeds:
            try:
                line = trial(seed)
            except BaseException as error:
                line = f"RAISED: {type(error).__name__}: {error}"
            text = line.replace("\n", " ")[:2000]
            os.write(sink, (text + "\n").encode())
        os._exit(0)
    os.close(sink)
    seed = seeds.start
    ended = ""
    for said in _lines(source):
        if said is None:
            ended = f"HUNG: nothing for {PATIENCE:g} s"
            os.kill(child, signal.SIGKILL)
            break
        yield seed, said
        seed += 1
    os.close(source)
    _, status = os.waitpid(child, 0)
    if seed < seeds.stop:
        yield seed, ended or f"CRASHED: the process ended with status {status}"


def _lines(source: int) -> Iterator[str | None]:
    """Yield the lines that come through a pipe; None when nothing comes for too long."""
    rest = b""
    while True:
        ready, _, _ = select.select([source], [], [], PATIENCE)
        if not ready:
            yield None
            return
        piece = os.read(source, 1 << 16)
        if not piece:
            return
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode()
