"""Times several tasks against each other: interleaved, repeated, summarised by medians.

A machine drifts (clock, temperature, neighbours), so that two things timed one after the other
are not comparable. Here each round times every task once, in a shuffled order: whatever slows the
machine down slows all of them, and the ratio of their medians stays.
"""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import repeat
from statistics import median
from typing import Any, TypeVar

Key = TypeVar("Key", bound=Hashable)
Clock = Callable[[], float]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Task:
    """Something to time.

    Attributes:
        call: the call that is timed.
        prepare: a call that is made before each round, and not timed.
    """

    call: Callable[[], object]
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Schedule:
    """How long to measure.

    Attributes:
        rounds: how often each task is timed.
        round_seconds: a round repeats a call until it takes about this long: longer by far than
            the clock's resolution and than an interrupt.
        settle_seconds: untimed calls before each round last this long, at least one call. They
            fill the caches, and meanwhile the worker threads of the task before stop spinning:
            libgomp's do so for about 5 ms, and each library may bring an OpenMP of its own.
        longest_seconds: a task that would take longer than this in all its rounds takes part in
            fewer, evenly spread, but in at least `fewest_rounds`.
        fewest_rounds: see `longest_seconds`.
        warm_up: calls before anything is timed.
    """

    rounds: int = 15
    round_seconds: float = 0.02
    settle_seconds: float = 0.01
    longest_seconds: float = 4.0
    fewest_rounds: int = 5
    warm_up: int = 3


QUICK = Schedule(
    rounds=3, round_seconds=0.001, settle_seconds=0.001, longest_seconds=0.2, fewest_rounds=3
)


@dataclass(frozen=True)
class Timing:
    """What was measured for one task.

    Attributes:
        seconds: of one call, for each round in which the task took part.
        calls: how many calls a round averages over.
    """

    seconds: tuple[float, ...]
    calls: int

    def quantile(self, fraction: float) -> float:
        """Seconds of a call that a `fraction` of the rounds does not exceed, interpolated."""
        ordered = sorted(self.seconds)
        position = fraction * (len(ordered) - 1)
        below = math.floor(position)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (position - below) * (ordered[above] - ordered[below])

    @property
    def median(self) -> float:
        """Seconds of a call in the middle round."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        return (self.quantile(0.75) - self.quantile(0.25)) / 2 / self.median

    def to_json(self) -> dict[str, Any]:
        """Return the rounds and, for readers without this module, figures computed from them."""
        return {
            "median": self.median,
            "lower_quartile": self.quantile(0.25),
            "upper_quartile": self.quantile(0.75),
            "minimum": min(self.seconds),
            "calls": self.calls,
            "seconds": list(self.seconds),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Timing:
        """Read what `to_json` gave."""
        return cls(tuple(data["seconds"]), data["calls"])


def measure(
    tasks: Mapping[Key, Task],
    schedule: Schedule,
    *,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> dict[Key, Timing]:
    """Time the tasks against each other.

    Args:
        tasks: the tasks, by name.
        schedule: how long to measure.
        seed: the seed of the order within each round.
        clock: returns the seconds since any fixed moment.

    Returns:
        The timing of each task, in the order of `tasks`.

    Garbage collection is off while the tasks run.
    """
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        calls = {name: _calls_a_round(task, schedule, clock) for name, task in tasks.items()}
        seconds: dict[Key, list[float]] = {name: [] for name in tasks}
        order = list(tasks)
        shuffle = random.Random(seed).shuffle
        for round_ in range(schedule.rounds):
            shuffle(order)
            for name in order:
                count, rounds = calls[name]
                if _takes_part(round_, rounds, schedule.rounds):
                    seconds[name].append(_time_round(tasks[name], count, schedule, clock))
        return {name: Timing(tuple(seconds[name]), calls[name][0]) for name in tasks}
    finally:
        if collecting:
            gc.enable()


def _calls_a_round(task: Task, schedule: Schedule, clock: Clock) -> tuple[int, int]:
    """Warm up; return how many calls a round needs, and how many rounds there is time for."""
    task.prepare()
    shortest = math.inf
    for _ in range(schedule.warm_up):
        start = clock()
        task.call()
        shortest = min(shortest, clock() - start)
    calls = max(1, math.ceil(schedule.round_seconds / max(shortest, 1e-9)))
    rounds = int(schedule.longest_seconds / max(calls * shortest, 1e-9))
    return calls, min(schedule.rounds, max(schedule.fewest_rounds, rounds))


def _takes_part(round_: int, rounds: int, of: int) -> bool:
    """Spread `rounds` rounds evenly among `of`."""
    return (round_ + 1) * rounds // of > round_ * rounds // of


def _time_round(task: Task, calls: int, schedule: Schedule, clock: Clock) -> float:
    task.prepare()
    call = task.call
    settled = clock() + schedule.settle_seconds
    call()
    while clock() < settled:
        call()
    start = clock()
    for _ in repeat(None, calls):
        call()
    return (clock() - start) / calls
