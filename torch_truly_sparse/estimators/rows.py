"""The scaled samples of a table, dense or sparse, as batches for a network."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

NARROW = 8  # samples are narrowed where at most one feature of so many occurs in them


class Batch(NamedTuple):
    """Some samples, and the features that they have values of.

    Attributes:
        values: (batch, features or len(columns)) float32.
        columns: int64, increasing: the features of `values`, all others are 0 in these samples; or
            None: `values` has all features.
    """

    values: Tensor
    columns: Tensor | None


class DenseRows:
    """Samples of a dense table.

    Args:
        table: (samples, features) float32.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.samples, self.features = table.shape

    def batch(self, picked: Tensor) -> Batch:
        """Return the samples of the numbers `picked`."""
        return Batch(self.table[picked], None)

    def whole(self, picked: Tensor) -> Tensor:
        """Return the samples of the numbers `picked`, (batch, features) float32."""
        return self.table[picked]

    def summed(self, groups: Tensor) -> Tensor:
        """Return groups @ table: (groups, features)."""
        return groups @ self.table

    def squares_summed(self, weights: Tensor) -> Tensor:
        """Return weights @ table^2: (features,)."""
        total = torch.zeros(self.features, dtype=torch.float32)
        for start in range(0, self.samples, 64):  # a block at a time: no second table
            part = slice(start, start + 64)
            total += weights[part] @ self.table[part].square()
        return total

    def reweighted(self, weight: Tensor) -> None:
        """Multiply each feature with its weight, in place."""
        self.table.mul_(weight)


class SparseRows:
    """Samples of a SciPy CSR table; a batch holds the features that occur in its samples.

    Args:
        table: scipy.sparse CSR (samples, features), float32 data, canonical.
    """

    def __init__(self, table: Any) -> None:
        self._starts = torch.from_numpy(table.indptr).long()
        self._columns = torch.from_numpy(table.indices).long()
        self._values = torch.from_numpy(table.data)
        self.samples, self.features = table.shape

    def batch(self, picked: Tensor) -> Batch:
        """Return the samples of the numbers `picked`, with the features that occur in them.

        All features, where many of them occur.

        Cost: O(n log n) time for n entries, batch x columns memory.
        """
        rows, entries = self._entries(picked)
        if NARROW * len(entries) > len(picked) * self.features:
            return Batch(self.whole(picked), None)
        columns, places = self._columns[entries].unique(return_inverse=True)
        values = torch.zeros(len(picked), len(columns), dtype=torch.float32)
        values[rows, places] = self._values[entries]
        return Batch(values, columns)

    def whole(self, picked: Tensor) -> Tensor:
        """Return the samples of the numbers `picked`, (batch, features) float32."""
        rows, entries = self._entries(picked)
        dense = torch.zeros(len(picked), self.features, dtype=torch.float32)
        dense[rows, self._columns[entries]] = self._values[entries]
        return dense

    def _entries(self, picked: Tensor) -> tuple[Tensor, Tensor]:
        """Return the place in `picked` of each entry of these samples, and its number."""
        starts, lengths = self._starts[picked], self._starts[picked + 1] - self._starts[picked]
        rows = torch.arange(len(picked)).repeat_interleave(lengths)
        before = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        return rows, torch.arange(len(rows)) - before + starts.repeat_interleave(lengths)

    def summed(self, groups: Tensor) -> Tensor:
        """Return groups @ table: (groups, features)."""
        rows = self._rows()
        total = torch.zeros(len(groups), self.features, dtype=torch.float32)
        for group, weights in enumerate(groups):
            total[group].index_add_(0, self._columns, weights[rows] * self._values)
        return total

    def squares_summed(self, weights: Tensor) -> Tensor:
        """Return weights @ table^2: (features,)."""
        weighted = weights[self._rows()] * self._values.square()
        return torch.zeros(self.features, dtype=torch.float32).index_add_(
            0, self._columns, weighted
        )

    def reweighted(self, weight: Tensor) -> None:
        """Multiply each feature with its weight, in place."""
        self._values.mul_(weight[self._columns])

    def _rows(self) -> Tensor:
        return torch.arange(self.samples).repeat_interleave(self._starts.diff())


Rows = DenseRows | SparseRows
