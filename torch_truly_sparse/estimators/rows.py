"""The scaled samples of a table, dense or sparse, as batches for a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DenseRows:
    """Samples of a dense table.

    Args:
        table: (samples, features) float32.
    """

    def __init__(self, table: Tensor) -> None:
        self.table = table
        self.samples, self.features = table.shape

    def batch(self, picked: Tensor) -> Tensor:
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
    """Samples of a SciPy CSR table; only the samples of a batch become dense.

    Args:
        table: scipy.sparse CSR (samples, features), float32 data, canonical.
    """

    def __init__(self, table: Any) -> None:
        self._starts = torch.from_numpy(table.indptr).long()
        self._columns = torch.from_numpy(table.indices).long()
        self._values = torch.from_numpy(table.data)
        self.samples, self.features = table.shape

    def batch(self, picked: Tensor) -> Tensor:
        """Return the samples of the numbers `picked`, (batch, features) float32."""
        starts, lengths = self._starts[picked], self._starts[picked + 1] - self._starts[picked]
        rows = torch.arange(len(picked)).repeat_interleave(lengths)
        before = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        entries = torch.arange(len(rows)) - before + starts.repeat_interleave(lengths)
        dense = torch.zeros(len(picked), self.features, dtype=torch.float32)
        dense[rows, self._columns[entries]] = self._values[entries]
        return dense

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
