"""The clock of benchmarks/: rounds, their order, and what is not timed."""

import gc
import json

import pytest
from small_benchmarks import INSTANT

from benchmarks import timing
from benchmarks.timing import Schedule, Task, Timing, measure

pytestmark = pytest.mark.usefixtures("_one_thread_in_benchmarks")


class FakeClock:
    """Time passes only where a task takes some; a call may be slowed down by the hour."""

    def __init__(self, drift: float = 0.0) -> None:
        self.now = 0.0
        self.drift = drift
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def task(self, name: str, seconds: float, prepare_seconds: float = 0.0) -> Task:
        def call() -> None:
            self.log.append(name)
            self.now += seconds * (1 + self.drift * self.now)

        def prepare() -> None:
            self.log.append(f"prepare {name}")
            self.now += prepare_seconds

        return Task(call, prepare)


def test_a_timing_sums_up_its_rounds():
    spread = Timing((5.0, 1.0, 3.0, 2.0, 4.0), 7)
    assert spread.median == 3
    assert (spread.quantile(0.25), spread.quantile(0.75)) == (2, 4)
    assert spread.quantile(0.125) == 1.5
    assert spread.spread == pytest.approx(1 / 3)
    assert Timing((2.0,), 1).spread == 0
    assert Timing.from_json(json.loads(json.dumps(spread.to_json()))) == spread
    assert spread.to_json()["minimum"] == 1


def test_calls_are_repeated_until_a_round_is_long_enough():
    clock = FakeClock()
    tasks = {"short": clock.task("short", 0.001), "long": clock.task("long", 0.03)}
    found = measure(tasks, Schedule(rounds=4, round_seconds=0.02), clock=clock)
    assert {name: timing.calls for name, timing in found.items()} == {"short": 20, "long": 1}
    assert list(found) == ["short", "long"]
    for name, seconds in (("short", 0.001), ("long", 0.03)):
        assert found[name].seconds == pytest.approx([seconds] * 4)


def test_preparing_and_settling_are_not_timed():
    clock = FakeClock()
    tick = 2.0**-10  # adds up exactly
    schedule = Schedule(rounds=3, round_seconds=2 * tick, settle_seconds=5 * tick, warm_up=2)
    found = measure({"it": clock.task("it", tick, prepare_seconds=16)}, schedule, clock=clock)
    assert found["it"].seconds == (tick,) * 3
    assert clock.log.count("prepare it") == 1 + 3
    assert clock.log.count("it") == 2 + 3 * (5 + 2)


def test_tasks_are_interleaved_so_that_drift_hits_all():
    clock = FakeClock(drift=2.0)
    tasks = {name: clock.task(name, cost) for name, cost in (("a", 0.01), ("b", 0.03))}
    found = measure(tasks, Schedule(rounds=15, round_seconds=0.01), clock=clock)
    assert found["a"].seconds[-1] > 2 * found["a"].seconds[0]
    assert found["b"].median / found["a"].median == pytest.approx(3, rel=0.1)


def test_every_round_has_an_order_of_its_own_and_a_seed_repeats_it():
    def order(seed: int) -> list[str]:
        clock = FakeClock()
        tasks = {name: clock.task(name, 1.0) for name in "abcd"}
        schedule = Schedule(rounds=5, settle_seconds=0, longest_seconds=99, warm_up=1)
        measure(tasks, schedule, seed=seed, clock=clock)
        return [name for name in clock.log if name.startswith("prepare")][4:]

    rounds = [tuple(order(0)[i : i + 4]) for i in range(0, 20, 4)]
    assert all(len(set(names)) == 4 for names in rounds)
    assert len(set(rounds)) > 1
    assert order(0) == order(0) != order(1)


def test_a_slow_task_takes_part_in_fewer_rounds_evenly_spread():
    clock = FakeClock()
    tasks = {"fast": clock.task("fast", 0.02), "slow": clock.task("slow", 1.0)}
    schedule = Schedule(rounds=12, longest_seconds=4, fewest_rounds=2)
    found = measure(tasks, schedule, clock=clock)
    assert (len(found["fast"].seconds), len(found["slow"].seconds)) == (12, 4)
    took_part = [timing._takes_part(round_, 4, 12) for round_ in range(12)]
    assert took_part == [False, False, True] * 4


def test_garbage_collection_rests_and_comes_back():
    seen = []
    measure({"it": Task(lambda: seen.append(gc.isenabled()))}, INSTANT)
    assert set(seen) == {False}
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure({"it": Task(lambda: 1 / 0)}, INSTANT)
    assert gc.isenabled()
