"""Which competitors may take part, and the calls that are timed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .competitors import DENSE_LIMIT, Competitor
from .correctness import Oracle
from .problem import Problem
from .results import FAILED, MISSING, OK, TOO_LARGE, WRONG


def admit(
    kind: type[Competitor], problem: Problem, oracle: Oracle
) -> tuple[str, str, Competitor | None]:
    """Build a competitor and check its results.

    Returns:
        The status, the reason if the competitor may not take part, and the competitor if it may.
    """
    try:
        kind.load()
    except ImportError as error:
        return MISSING, f"{error}; pip install {kind.distribution}", None
    if kind.needs_dense and problem.shape.in_features * problem.shape.out_features > DENSE_LIMIT:
        return TOO_LARGE, f"its dense weight has more than {DENSE_LIMIT:,} entries", None
    try:
        competitor = kind(problem)
        errors = check(competitor, problem, oracle)
    except Exception as error:  # whatever another library raises: reported, not timed
        return FAILED, f"{type(error).__name__}: {error}", None
    explanation = wrong(errors)
    return (WRONG, explanation, None) if explanation else (OK, "", competitor)


def check(competitor: Competitor, problem: Problem, oracle: Oracle) -> dict[str, float]:
    """Make two steps, and compare the results of the second with the oracle: see `Oracle.errors`.

    Some competitors keep data of the first step, and would show an error in the second alone.
    """
    step = forward_backward(competitor, problem)
    step()
    output = step()
    if problem.input.grad is None:
        raise RuntimeError("the input received no gradient")
    return oracle.errors(output, problem.input.grad, competitor.grad_values())


def wrong(errors: dict[str, float]) -> str:
    """Name the errors that are too large; return an empty text if there are none."""
    found = [f"{name} by {error:.3g} times" for name, error in errors.items() if not error <= 1]
    return f"off by more than rounding explains: {', '.join(found)}" if found else ""


def forward(competitor: Competitor, problem: Problem) -> Callable[[], Tensor]:
    """Make the call that evaluates the layer without recording a graph."""

    def call() -> Tensor:
        with torch.no_grad():
            return competitor.forward(problem.input)

    return call


def forward_backward(competitor: Competitor, problem: Problem) -> Callable[[], Tensor]:
    """Make the call of one step up to the gradients of the weights and of the input.

    The gradients of the step before are dropped first, as `zero_grad` does.
    """

    def call() -> Tensor:
        problem.input.grad = competitor.weight.grad = None
        output = competitor.forward(problem.input)
        output.backward(problem.grad_output)
        return output

    return call
