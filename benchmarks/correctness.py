"""Checks that a competitor's results are right, before its speed is measured."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .problem import Problem

# Entries of the largest dense float64 matrix that the oracle makes: 128 MB.
DENSE_LIMIT = 2**24
SAMPLED_WEIGHTS = 2**14
_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class _Sums:
    """Some entries of a result in float64: where they are, and how far rounding may move them.

    `bound` is (terms + 1) epsilon times the sum of the absolute products, which holds for float32
    sums in any order.
    """

    where: Tensor
    expected: Tensor
    bound: Tensor

    def error(self, actual: Tensor) -> float:
        """Return the largest error as a multiple of its bound; at most 1 is correct."""
        error = (actual.detach().double() - self.expected).abs()
        if not error.isfinite().all():
            return float("inf")
        relative = error / self.bound.clamp_min(torch.finfo(torch.float64).tiny)
        return float(relative.max()) if relative.numel() else 0.0


class Oracle:
    """The results of a problem in dense float64 arithmetic.

    It compares all results where the dense matrix has at most `DENSE_LIMIT` entries; otherwise
    those of randomly drawn output units, input units and weights, always with the first and the
    last.
    """

    def __init__(self, problem: Problem) -> None:
        shape = problem.shape
        self._problem = problem
        generator = torch.Generator().manual_seed(shape.nnz)
        outputs = _some(shape.out_features, DENSE_LIMIT // shape.in_features, generator)
        inputs = _some(shape.in_features, DENSE_LIMIT // shape.out_features, generator)
        all_fits = shape.in_features * shape.out_features <= DENSE_LIMIT
        weights = _some(shape.nnz, shape.nnz if all_fits else SAMPLED_WEIGHTS, generator)
        x, dy = problem.input.detach().double(), problem.grad_output.double()
        w = self._slab(0, outputs)
        self._output = _sums(outputs, x @ w.t(), x.abs() @ w.abs().t(), shape.in_features)
        w = self._slab(1, inputs)
        self._grad_input = _sums(inputs, dy @ w, dy.abs() @ w.abs(), shape.out_features)
        rows, columns = problem.topology.indices[:, weights].long()
        if all_fits:
            dw, magnitude = (dy.t() @ x)[rows, columns], (dy.abs().t() @ x.abs())[rows, columns]
        else:
            products = dy[:, rows] * x[:, columns]
            dw, magnitude = products.sum(0), products.abs().sum(0)
        self._grad_values = _sums(weights, dw, magnitude, shape.batch)

    def errors(self, output: Tensor, grad_input: Tensor, grad_values: Tensor) -> dict[str, float]:
        """Compare results with the right ones.

        Args:
            output: (batch, out_features).
            grad_input: (batch, in_features).
            grad_values: (nnz,) in the order of the problem's topology.

        Returns:
            For each of `output`, `grad_input` and `grad_values` the largest error as a multiple
            of what rounding explains: at most 1 is correct. A wrong shape is an infinite error.
        """
        shape = self._problem.shape
        results = {
            "output": (output, (shape.batch, shape.out_features), self._output),
            "grad_input": (grad_input, (shape.batch, shape.in_features), self._grad_input),
            "grad_values": (grad_values, (shape.nnz,), self._grad_values),
        }
        return {
            name: sums.error(actual[..., sums.where]) if actual.shape == size else float("inf")
            for name, (actual, size, sums) in results.items()
        }

    def _slab(self, dimension: int, units: Tensor) -> Tensor:
        """Make some rows (0) or columns (1) of the dense weight, in float64."""
        problem = self._problem
        size = [problem.shape.out_features, problem.shape.in_features]
        place = torch.full((size[dimension],), -1)
        place[units] = torch.arange(len(units))
        indices = problem.topology.indices.long()
        indices[dimension] = place[indices[dimension]]
        chosen = indices[dimension] >= 0
        size[dimension] = len(units)
        slab = torch.zeros(size, dtype=torch.float64)
        rows, columns = indices[:, chosen]
        slab[rows, columns] = problem.values[chosen].double()
        return slab


def _some(population: int, count: int, generator: torch.Generator) -> Tensor:
    """All of [0, population), or about `count` of them, sorted, with both ends."""
    if count >= population:
        return torch.arange(population)
    drawn = torch.randint(population, (max(count - 2, 0),), generator=generator)
    chosen: Tensor = torch.cat([drawn, torch.tensor([0, population - 1])]).unique()
    return chosen


def _sums(where: Tensor, expected: Tensor, magnitude: Tensor, terms: int) -> _Sums:
    return _Sums(where, expected, magnitude.mul_((terms + 1) * _EPSILON))
