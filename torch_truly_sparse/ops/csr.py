"""A topology as the products read it: row pointers, columns and, where known, the column order.

An object cannot cross the border of a compiler or of autograd, which take and keep tensors. A
topology is taken apart into `CsrParts` on one side, and `CsrParts(*tensors)` puts it together on
the other.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class TransposedOrder(NamedTuple):
    """The nonzeros of a topology in the order of its columns.

    Attributes:
        ccol_indices: (in_features + 1,) int64 column pointers.
        row_indices: (nnz,) row of each nonzero, sorted by (column, row).
        permutation: (nnz,) where the row order holds each of them.
    """

    ccol_indices: Tensor
    row_indices: Tensor
    permutation: Tensor


class CsrParts(NamedTuple):
    """The nonzeros of one topology in compressed rows, and in compressed columns where known.

    Attributes:
        row_pointers: (out_features + 1,) int64.
        col_indices: (nnz,) int32 or int64, the column of each nonzero, in row order.
        in_features: number of columns.
        ccol_indices, row_indices, permutation: the column order (`ops.TransposedOrder`), or None:
            input gradients do without it, and are slower for large batches.
    """

    row_pointers: Tensor
    col_indices: Tensor
    in_features: int
    ccol_indices: Tensor | None = None
    row_indices: Tensor | None = None
    permutation: Tensor | None = None

    @property
    def parts(self) -> CsrParts:
        """The parts themselves: what is taken apart can stand for the whole."""
        return self

    @property
    def transposed(self) -> TransposedOrder | None:
        """The column order, or None where it is not known."""
        if self.ccol_indices is None or self.row_indices is None or self.permutation is None:
            return None
        return TransposedOrder(self.ccol_indices, self.row_indices, self.permutation)


class Csr(Protocol):
    """What the products ask of a topology: a `Topology` has it, and so have its parts."""

    @property
    def parts(self) -> CsrParts:
        """The topology taken apart."""
