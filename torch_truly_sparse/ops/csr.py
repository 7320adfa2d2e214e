"""A topology as the products read it: row pointers, columns and, if derived, the order by columns.

Compilers and autograd take tensors, not objects that hold tensors. A topology is therefore taken
apart into `CsrParts` before it is handed to them; on the other side, `CsrParts(*tensors)` puts the
tensors together again.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor


class TransposedOrder(NamedTuple):
    """The nonzeros of a topology in the order by columns.

    Attributes:
        ccol_indices: (in_features + 1,) int64 column pointers.
        row_indices: (nnz,) row of each nonzero, sorted by (column, row).
        permutation: (nnz,) number of each of these nonzeros in the order by rows.
    """

    ccol_indices: Tensor
    row_indices: Tensor
    permutation: Tensor


class CsrParts(NamedTuple):
    """The nonzeros of one topology in compressed rows and, if derived, in compressed columns.

    Attributes:
        row_pointers: (out_features + 1,) int64.
        col_indices: (nnz,) int32 or int64, the column of each nonzero, in the order by rows.
        in_features: number of columns.
        ccol_indices, row_indices, permutation: the order by columns (`ops.TransposedOrder`), or
            None where it has not been derived; input gradients of large batches are then slower.
    """

    row_pointers: Tensor
    col_indices: Tensor
    in_features: int
    ccol_indices: Tensor | None = None
    row_indices: Tensor | None = None
    permutation: Tensor | None = None

    @property
    def parts(self) -> CsrParts:
        """The parts themselves, so that `CsrParts` serves wherever a `Csr` is expected."""
        return self

    @property
    def transposed(self) -> TransposedOrder | None:
        """The order by columns, or None where it has not been derived."""
        if self.ccol_indices is None or self.row_indices is None or self.permutation is None:
            return None
        return TransposedOrder(self.ccol_indices, self.row_indices, self.permutation)


class Csr(Protocol):
    """What the products need of a topology; `Topology` and `CsrParts` provide it."""

    @property
    def parts(self) -> CsrParts:
        """The topology taken apart."""
