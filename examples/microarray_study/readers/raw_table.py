"""What the readers of all formats return, and words that mean "missing" in all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from microarray_study.data_set import Features
from microarray_study.labels import MISSING_WORDS


@dataclass
class RawTable:
    """A table of samples x features as it stands in a file: values may be missing (NaN).

    `labels` is None where none was asked for. Names are None where the file has none.
    """

    values: Features
    labels: Any = None
    feature_names: Sequence[str] | None = None
    sample_names: Sequence[str] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Columns:
    """A table whose columns may be features, labels or names.

    `values` is (rows, columns), NaN where a cell is missing or no number. `texts` has the cells of
    each column that may be something else than a feature; those in `textual` hold something that
    is neither a number nor missing. `line_of` returns the line of the file that a row stands in.
    """

    names: list[str] | None
    values: Features
    texts: dict[int, list[str]]
    textual: frozenset[int]
    row_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    line_of: Callable[[int], int] | None = None


def is_missing(cell: str) -> bool:
    """Whether a cell means that there is no value."""
    return cell.strip().lower() in MISSING_WORDS


def as_number(cell: str, decimal: str = ".") -> float | None:
    """Return the number in a cell, NaN for a missing one, None for any other text."""
    text = cell.strip()
    if text.lower() in MISSING_WORDS:
        return float("nan")
    if "_" in text or (decimal != "." and "." in text):
        return None
    try:
        return float(text.replace(decimal, "."))
    except ValueError:
        return None


def numbers_of(cells: Iterable[str], decimal: str = ".") -> Features | None:
    """Return the numbers of a column of cells, or None if a cell holds text."""
    numbers = [as_number(cell, decimal) for cell in cells]
    if any(number is None for number in numbers):
        return None
    with np.errstate(over="ignore"):
        return np.array(numbers, dtype=np.float64).astype(np.float32)


def some(names: Sequence[str], most: int = 4) -> str:
    """List the first of many names."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names):,} in all)"
