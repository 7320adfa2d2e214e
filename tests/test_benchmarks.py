"""benchmarks/: the clock, the competitors, the record, and that every one of them runs."""

import gc
import importlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import (
    contest,
    correctness,
    evolution,
    layer,
    products,
    scaling,
    small_layer,
    threads,
    timing,
)
from benchmarks import report as report_module
from benchmarks.command_line import main, parse
from benchmarks.competitors import COMPETITORS, OURS, SPARSE_PEERS, Competitor, TrulySparse
from benchmarks.contest import admit
from benchmarks.correctness import Oracle
from benchmarks.problem import Problem
from benchmarks.results import (
    BOTH,
    FAILED,
    FORWARD,
    MISSING,
    OK,
    SCHEMA,
    TOO_LARGE,
    WRONG,
    Results,
    Row,
    geometric_mean,
    ratios,
)
from benchmarks.shapes import DENSE, GROUPS, PEERS, Shape, parse_shapes
from benchmarks.timing import Schedule, Task, Timing, measure
from torch_truly_sparse import GradientRegrow, ops

SMALL = Shape(37, 53, 6, 0.2)
# The sizes of which SparseProp takes another path: multiples of 16.
ALIGNED = Shape(64, 48, 16, 0.1)
INSTANT = Schedule(
    rounds=1, round_seconds=1e-9, settle_seconds=0, longest_seconds=1, fewest_rounds=1, warm_up=1
)
ABOUT = {
    "processor": "abacus",
    "cores": 1,
    "instruction_set": "scalar",
    "load": 0.0,
    "ceilings": {"sgemm": 100.0, "L1": 400.0, "DRAM": 30.0},
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small problems, and other tests may be running beside: threads would wait, not work."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


# Timing.


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


# Shapes.


def test_shapes_are_read_from_groups_and_from_text():
    assert parse_shapes("12x34x5@0.5") == [Shape(12, 34, 5, 0.5)]
    assert parse_shapes("peers,dense") == list(dict.fromkeys([*PEERS, *DENSE]))
    assert [parse_shapes(str(shape)) for shape in PEERS] == [[shape] for shape in PEERS]
    assert GROUPS["streaming"][0].nnz == 12_000_000
    assert len(set(PEERS)) == 15


@pytest.mark.parametrize("text", ["", "pears", "1x2@0.1", "1x2x3@0", "1x2x3@1.5", "0x2x3@1"])
def test_what_is_no_shape_ends_the_program_with_one_clear_line(text, capsys):
    with pytest.raises(SystemExit):
        parse(layer.BENCHMARK, ["--shapes", text])
    assert "--shapes" in capsys.readouterr().err


# The oracle and the competitors.


def small_problem(shape: Shape = SMALL) -> Problem:
    return Problem.draw(shape, seed=3)


def right_results(problem: Problem) -> list[torch.Tensor]:
    x = problem.input.detach().clone().requires_grad_()
    weight = problem.dense_weight().requires_grad_()
    output = x @ weight.t()
    output.backward(problem.grad_output)
    rows, columns = problem.indices.long()
    return [output.detach(), x.grad, weight.grad[rows, columns]]


@pytest.mark.parametrize("limit", [correctness.DENSE_LIMIT, 16 * 53])
def test_the_oracle_knows_right_from_wrong(limit, monkeypatch):
    monkeypatch.setattr(correctness, "DENSE_LIMIT", limit)
    monkeypatch.setattr(correctness, "SAMPLED_WEIGHTS", 100)
    problem = small_problem()
    oracle = Oracle(problem)
    right = right_results(problem)
    assert max(oracle.errors(*right).values()) <= 1
    for place, name in enumerate(["output", "grad_input", "grad_values"]):
        for spoil in (lambda t: t * 1.001, lambda t: t.roll(1, -1), lambda t: t[..., :-1]):
            results = [spoil(t) if i == place else t for i, t in enumerate(right)]
            wrong = [key for key, error in oracle.errors(*results).items() if not error <= 1]
            assert wrong == [name]
        results = [torch.full_like(t, math.nan) if i == place else t for i, t in enumerate(right)]
        assert oracle.errors(*results)[name] == math.inf


def test_the_oracle_misses_no_single_wrong_weight():
    problem = small_problem()
    oracle = Oracle(problem)
    output, grad_input, grad_values = right_results(problem)
    for weight in range(problem.shape.nnz):
        spoiled = grad_values.clone()
        spoiled[weight] += 1e-3 * spoiled[weight].abs() + 1e-3
        assert oracle.errors(output, grad_input, spoiled)["grad_values"] > 1


@pytest.mark.parametrize("shape", [SMALL, ALIGNED], ids=str)
@pytest.mark.parametrize("kind", COMPETITORS, ids=lambda kind: kind.name)
def test_every_competitor_that_is_installed_is_right(kind, shape):
    try:
        kind.load()
    except ImportError as error:
        pytest.skip(f"{kind.name} is not installed: {error}")
    # Twice, on other topologies: what was kept of the first must not spoil the second.
    for seed in (0, 1):
        problem = Problem.draw(shape, seed=seed)
        status, reason, competitor = admit(kind, problem, Oracle(problem))
        assert status == OK, reason
        evaluated = contest.forward(competitor, problem)()
        assert not evaluated.requires_grad
        torch.testing.assert_close(evaluated, competitor.forward(problem.input).detach())


class Doubled(TrulySparse):
    name = "doubled gradient"

    def grad_values(self) -> torch.Tensor:
        return 2 * super().grad_values()


class Crashing(TrulySparse):
    name = "crashing"

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no such kernel")


class Absent(TrulySparse):
    name = "absent"
    module = "a_module_that_nobody_has"
    distribution = "nobody-has-it"


class Heavy(TrulySparse):
    name = "heavy"
    needs_dense = True


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        (Doubled, WRONG, "grad_values by"),
        (Crashing, FAILED, "RuntimeError: no such kernel"),
        (Absent, MISSING, "pip install nobody-has-it"),
        (Heavy, TOO_LARGE, "100 entries"),
    ],
)
def test_who_is_not_right_is_reported_and_not_timed(kind, status, text, monkeypatch):
    monkeypatch.setattr(contest, "DENSE_LIMIT", 100)
    rows = layer.time_shape(SMALL, [TrulySparse, kind], INSTANT, 0, {})
    by_status = {(row.subject, row.measure): row for row in rows}
    for what in (FORWARD, BOTH):
        assert by_status[OURS, what].status == OK
        assert by_status[OURS, what].timing is not None
        row = by_status[kind.name, what]
        assert (row.status, row.timing) == (status, None)
        assert text in row.detail
    text = layer.report(results_of("layer", rows))
    assert f"- {kind.name}: {status}" in text


def test_the_problem_is_the_same_for_all_and_repeatable():
    first, second = small_problem(), small_problem()
    for name in ("indices", "values", "input", "grad_output"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    problem = small_problem()
    before = problem.values.clone()
    competitor = TrulySparse(problem)
    with torch.no_grad():
        competitor.weight.zero_()
    assert torch.equal(problem.values, before)


# Results.


def results_of(benchmark: str, rows: list[Row]) -> Results:
    return Results(benchmark, {"threads": 1}, ABOUT, {"torch": "2"}, rows)


def by_hand(tmp_path: Path) -> Path:
    """A results file as somebody else might write it, with round numbers."""

    def row(shape: Shape, subject: str, milliseconds: float, work: str = BOTH) -> dict[str, object]:
        return {
            "shape": vars(shape),
            "subject": subject,
            "measure": work,
            "threads": 2,
            "status": "ok",
            "detail": "",
            "timing": {"seconds": [milliseconds / 1e3] * 3, "calls": 1},
        }

    first, second = PEERS[:2]
    rows = [row(first, OURS, 1), row(first, "SparseProp", 2), row(first, "SparseLab", 3)]
    rows += [row(second, OURS, 4), row(second, "SparseProp", 50), row(second, "SparseLab", 32)]
    rows += [row(shape, "machine", 2.68435456, "sgemm") for shape in (first, second)]
    rows += [row(shape, "machine", 10, "DRAM") for shape in (first, second)]
    rows.append({**row(first, "torch-sparse", 0), "status": "missing", "timing": None})
    path = tmp_path / "layer.json"
    record = {"schema": SCHEMA, "benchmark": "layer", "settings": {"threads": 2}}
    record |= {"machine": ABOUT, "versions": {"torch": "2"}, "rows": rows}
    path.write_text(json.dumps(record))
    return path


def test_geometric_means_of_a_file_made_by_hand(tmp_path, capsys):
    path = by_hand(tmp_path)
    results = Results.read(path)
    found = ratios(results, results.shapes, SPARSE_PEERS, OURS, BOTH)
    assert [(ratio.subject, ratio.value) for ratio in found] == [
        ("SparseProp", pytest.approx(2)),
        ("SparseLab", pytest.approx(8)),
    ]
    assert geometric_mean([ratio.value for ratio in found]) == pytest.approx(4)
    assert ratios(results, results.shapes, SPARSE_PEERS, OURS, FORWARD) == []
    assert report_module.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert f"fastest sparse library: 4.00 over 2 shapes; lowest 2.00 on {PEERS[0]}" in text
    assert f"SparseProp: 5.00 over 2 shapes; lowest 2.00 on {PEERS[0]}" in text
    assert "- torch-sparse: missing" in text


def test_rates_count_the_nonzeros_only(tmp_path):
    results = Results.read(by_hand(tmp_path))
    shape = PEERS[0]
    row = results.find(shape, OURS, BOTH)
    assert row.gflops == pytest.approx(6 * shape.nnz * shape.batch / 1e-3 / 1e9)
    assert row.weight_bandwidth == pytest.approx(20 * shape.nnz / 1e-3 / 1e9)
    assert results.machine_rate(shape, "sgemm") == pytest.approx(100)
    assert results.machine_rate(shape, "DRAM") == pytest.approx(26.8435456)
    with pytest.raises(ValueError, match=r"torch-sparse was not timed on .*: missing"):
        _ = results.find(shape, "torch-sparse", BOTH).gflops


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "another/1"}'])
def test_a_file_of_something_else_is_refused(text, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is not"):
        Results.read(path)
    with pytest.raises(SystemExit):
        report_module.main([str(path)])
    assert "x.json is not" in capsys.readouterr().err


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [-1.0]])
def test_a_geometric_mean_needs_positive_numbers(values):
    with pytest.raises(ValueError, match="must be positive"):
        geometric_mean(values)


# Everything runs.


def test_the_layer_benchmark_runs_writes_and_is_read_back(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output, plot = tmp_path / "new" / "layer.json", tmp_path / "layer.png"
    arguments = ["--quick", "--threads", "1", "--competitors", f"{OURS},dense"]
    arguments += ["--shapes", "48x32x8@0.1,48x32x8@0.5", "--seed", "5"]
    status = main(layer.BENCHMARK, [*arguments, "--output", str(output), "--plot", str(plot)])
    printed = capsys.readouterr().out
    assert status == 0
    record = json.loads(output.read_text())
    assert record["schema"] == SCHEMA
    assert record["settings"]["seed"] == 5
    assert record["settings"]["shapes"] == ["48x32x8@0.1", "48x32x8@0.5"]
    assert record["versions"]["torch"] == torch.__version__
    assert all(row["timing"]["median"] > 0 for row in record["rows"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    results = Results.read(output)
    assert len(results.rows) == 2 * (2 * 2 + 2)
    assert layer.report(results) + "\n" == printed
    plot.unlink()
    assert report_module.main([str(output), "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == printed
    assert replace(results, rows=[]).shapes == []


def test_the_program_fails_where_we_are_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(layer, "time_shape", lambda shape, *_: [Row(shape, OURS, BOTH, 1, WRONG)])
    arguments = ["--quick", "--threads", "1", "--output", str(tmp_path / "x.json")]
    assert main(layer.BENCHMARK, arguments) == 1


def test_the_products_run():
    rows = products.time_shape(SMALL, INSTANT, 0, {})
    assert [row.measure for row in rows] == ["forward", "dX", "dW", "backward"]
    assert all(row.status == OK and row.timing is not None for row in rows)
    assert "The products" in products.report(results_of("products", rows))


def test_the_threads_run(tmp_path):
    rows = threads.time_shape(SMALL, [1, 2], INSTANT, 0)
    assert {(row.subject, row.threads) for row in rows} == {
        (name, count) for name in (OURS, "dense") for count in (1, 2)
    }
    assert "1 / 2" in threads.report(results_of("threads", rows))
    assert [threads.numbers_of_threads(most) for most in (1, 2, 3, 8)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
    ]


def test_tiny_layers_run():
    rows = small_layer.time_shape(Shape(8, 8, 1, 0.5), INSTANT, 0)
    assert len(rows) == 4
    assert "8x8x1@0.5" in small_layer.report(results_of("small_layer", rows))


def test_evolutions_run():
    rows = evolution.time_random(SMALL, INSTANT, 0) + evolution.time_gradient(ALIGNED, INSTANT, 0)
    assert [(row.subject, row.measure) for row in rows] == [
        (OURS, "evolution"),
        (OURS, "step"),
        (OURS, "step+evolution"),
        ("dense", "dW"),
    ]
    assert all(row.status == OK and row.timing is not None for row in rows)
    text = evolution.report(results_of("evolution", rows))
    assert f"| {SMALL} " in text
    assert f"| {ALIGNED} " in text


def test_an_evolution_is_by_hand_what_the_report_says():
    def row(subject: str, measure: str, seconds: float) -> Row:
        return Row(ALIGNED, subject, measure, 1, OK, timing=Timing((seconds,), 1))

    rows = [row(OURS, "step", 0.003), row(OURS, "step+evolution", 0.033)]
    rows.append(row("dense", "dW", 0.02))
    last = evolution.report(results_of("evolution", rows)).strip().splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[-3:-1]] == ["30.0", "1.50"]


@pytest.mark.parametrize("what", ["weights", "choice"])
def test_an_evolution_that_is_wrong_is_reported_and_not_timed(what, monkeypatch):
    if what == "weights":
        survey = evolution.Training.survey

        def spoiled(training):
            positions, weights, momentum = survey(training)
            return positions, weights, momentum + len(training.evolution.history)

        monkeypatch.setattr(evolution.Training, "survey", spoiled)
        rows = evolution.time_random(SMALL, INSTANT, 0)
        assert "connections changed" in rows[0].detail
    else:

        def lowest(self, view, survivors, count, *, generator):
            return ops.empty_positions(survivors, torch.arange(count))

        monkeypatch.setattr(GradientRegrow, "select", lowest)
        rows = evolution.time_gradient(ALIGNED, INSTANT, 0)
        assert "larger gradient" in rows[0].detail
    assert all(row.status == WRONG and row.timing is None for row in rows)
    assert "wrong" in evolution.report(results_of("evolution", rows))


def test_growth_is_fitted_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    sweep = scaling.Sweep("batch", "16 x 16", [Shape(16, 16, batch, 0.5) for batch in (1, 2, 4)])
    rows = scaling.time_sweep(sweep, INSTANT, 0)
    results = results_of("scaling", rows)
    assert scaling.sweeps_in(results) == [sweep]
    assert "Batch: 16 x 16" in scaling.report(results)
    assert plots.draw_scaling(results, tmp_path / "scaling.png").stat().st_size > 1000
    sizes = [1.0, 2.0, 5.0, 10.0]
    assert scaling.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    # A fixed cost bends the small end only.
    assert scaling.large_half([1, 2, 100, 200], [9, 9, 100, 200]) == pytest.approx(1)


def test_the_break_even_is_where_the_curve_falls_to_one():
    pytest.importorskip("matplotlib")
    from benchmarks.plots import break_even

    assert break_even([0.1, 0.4], [2.0, 0.5]) == pytest.approx(0.2)
    assert break_even([0.1, 0.2, 0.4, 0.8], [8.0, 4.0, 1.0, 0.5]) == pytest.approx(0.4)
    assert break_even([0.1, 0.4], [3.0, 2.0]) is None
    assert break_even([0.1, 0.4], [0.5, 0.2]) is None


def test_a_picture_without_densities_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    rows = layer.time_shape(SMALL, [TrulySparse], INSTANT, 0, {})
    with pytest.raises(ValueError, match="two or more densities"):
        plots.draw_density(results_of("layer", rows), tmp_path / "x.png")
    rows = threads.time_shape(SMALL, [1], INSTANT, 0)
    with pytest.raises(ValueError, match="more than 1 thread"):
        plots.draw_threads(results_of("threads", rows), tmp_path / "x.png")


@pytest.mark.parametrize("name", report_module.BENCHMARKS)
def test_every_benchmark_has_a_command_line(name, capsys):
    benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    assert benchmark.name == name
    assert parse(benchmark, ["--quick"]).output == Path(f"results/{name}-quick.json")
    assert parse(benchmark, []).output == Path(f"results/{name}.json")
    with pytest.raises(SystemExit):
        parse(benchmark, ["--threads", "0"])
    assert "--threads" in capsys.readouterr().err


def test_a_benchmark_is_a_program(tmp_path):
    path = by_hand(tmp_path)
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", str(path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("# One layer")


def test_no_two_competitors_share_a_name():
    names = [kind.name for kind in COMPETITORS]
    assert len(set(names)) == len(names)
    assert all(issubclass(kind, Competitor) for kind in COMPETITORS)
    assert set(SPARSE_PEERS) == {"torch CSR", "torch-sparse", "SparseProp", "SparseLab"}
