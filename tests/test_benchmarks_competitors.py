"""The competitors of benchmarks/: nobody is timed who is not right."""

import math

import pytest
import torch
from small_benchmarks import ALIGNED, INSTANT, SMALL, results_of

from benchmarks import contest, correctness, layer
from benchmarks.competitors import COMPETITORS, OURS, SPARSE_PEERS, Competitor, TrulySparse
from benchmarks.contest import admit
from benchmarks.correctness import Oracle
from benchmarks.problem import Problem
from benchmarks.results import BOTH, FAILED, FORWARD, MISSING, OK, TOO_LARGE, WRONG
from benchmarks.shapes import Shape

pytestmark = pytest.mark.usefixtures("_one_thread_in_benchmarks")


def small_problem(shape: Shape = SMALL) -> Problem:
    return Problem.draw(shape, seed=3)


def right_results(problem: Problem) -> list[torch.Tensor]:
    x = problem.input.detach().clone().requires_grad_()
    weight = problem.dense_weight().requires_grad_()
    output = x @ weight.t()
    output.backward(problem.grad_output)
    rows, columns = problem.topology.indices.long()
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
    assert first.topology == second.topology
    for name in ("values", "input", "grad_output"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    problem = small_problem()
    before = problem.values.clone()
    competitor = TrulySparse(problem)
    with torch.no_grad():
        competitor.weight.zero_()
    assert torch.equal(problem.values, before)


def test_no_two_competitors_share_a_name():
    names = [kind.name for kind in COMPETITORS]
    assert len(set(names)) == len(names)
    assert all(issubclass(kind, Competitor) for kind in COMPETITORS)
    assert set(SPARSE_PEERS) == {"torch CSR", "torch-sparse", "SparseProp", "SparseLab"}
