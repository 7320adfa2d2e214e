"""How time grows with a size: the layers of a sweep, and the power that fits their times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .results import Results
from .shapes import Shape


@dataclass(frozen=True)
class Sweep:
    """Layers of which one size grows while all others stay.

    Attributes:
        name: the size that grows: `weights`, `batch` or `width`.
        title: the sizes that stay.
        shapes: the layers, from small to large.
    """

    name: str
    title: str
    shapes: Sequence[Shape]

    @property
    def label(self) -> str:
        """The `detail` of the rows of this sweep."""
        return f"{self.name}: {self.title}"

    def size(self, shape: Shape) -> int:
        """Return the size of a shape that grows in this sweep."""
        return {"weights": shape.nnz, "batch": shape.batch, "width": shape.in_features}[self.name]


def sweeps_in(results: Results) -> list[Sweep]:
    """Find the sweeps that were measured."""
    found: dict[str, dict[Shape, None]] = {}
    for row in results.rows:
        if row.timing is not None:
            found.setdefault(row.detail, {})[row.shape] = None
    sweeps = []
    for label, shapes in found.items():
        name, title = label.split(": ", 1)
        sweeps.append(Sweep(name, title, list(shapes)))
    return sweeps


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Fit p of seconds ~ size ** p by least squares of the logarithms: 1 is linear.

    Raises:
        ValueError: there are fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError("`sizes` must be at least two")
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    x_mean, y_mean = math.fsum(x) / len(x), math.fsum(y) / len(y)
    above = math.fsum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return above / math.fsum((a - x_mean) ** 2 for a in x)


def large_half(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Fit the exponent to the larger half of the sizes, where a call's fixed cost is small."""
    middle = min(len(sizes) // 2, len(sizes) - 2)
    return exponent(sizes[middle:], seconds[middle:])


def curve(results: Results, sweep: Sweep, measure: str) -> tuple[list[int], list[float]]:
    """Return the sizes of a sweep that were timed, and the seconds of each."""
    points = [
        (sweep.size(row.shape), row.timing.median)
        for row in results.rows
        if row.detail == sweep.label and row.measure == measure and row.timing is not None
    ]
    return [size for size, _ in points], [seconds for _, seconds in points]
