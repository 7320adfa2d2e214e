"""One step from a topology to the next, and how tensors follow it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..topology import from_positions


@dataclass(frozen=True)
class TopologyChange:
    """The next topology of a layer, and what becomes of each connection.

    Attributes:
        indices: (2, nnz) the next topology, sorted and unique.
        dropped: (nnz before,) bool, in the order of the present topology.
        grown: (nnz,) bool, in the order of the next one. Survivors keep their relative order.
    """

    indices: Tensor
    dropped: Tensor
    grown: Tensor

    @classmethod
    def merge(
        cls,
        survivors: Tensor,
        dropped: Tensor,
        regrown: Tensor,
        out_features: int,
        in_features: int,
    ) -> TopologyChange:
        """Put survivors and regrown connections into one sorted order.

        Args:
            survivors: (n,) int64 positions that stay, increasing.
            dropped: (nnz before,) bool.
            regrown: (m,) int64 positions, increasing, none of them a survivor.
            out_features: number of output units.
            in_features: number of input units.

        Raises:
            ValueError: the regrown positions are not as asked.

        Cost: O(n + m log n).
        """
        if not regrown.diff().gt(0).all():
            raise ValueError("regrown positions must be increasing and distinct")
        if regrown.numel() and (regrown[0] < 0 or regrown[-1] >= out_features * in_features):
            raise ValueError("regrown positions must lie in [0, out_features * in_features)")
        before = torch.searchsorted(survivors, regrown)  # survivors that come before each
        slots = before + torch.arange(regrown.shape[0], device=regrown.device)
        nnz = survivors.shape[0] + regrown.shape[0]
        grown = torch.zeros(nnz, dtype=torch.bool, device=survivors.device)
        grown[slots] = True
        positions = survivors.new_empty(nnz)
        positions.masked_scatter_(~grown, survivors).masked_scatter_(grown, regrown)
        if not positions.diff().gt(0).all():
            raise ValueError("regrown positions must not be among those that survive")
        return cls(from_positions(positions, out_features, in_features), dropped, grown)

    def move(self, entries: Tensor, fresh: Tensor | float) -> Tensor:
        """Carry one number per connection over to the next topology.

        Args:
            entries: (nnz before,) in the present order.
            fresh: (number regrown,) for the new connections in their order, or one number for
                all of them.

        Returns:
            (nnz,) in the next order, new memory.
        """
        moved = entries.new_empty(self.grown.shape)
        moved.masked_scatter_(~self.grown, entries[~self.dropped])
        if isinstance(fresh, Tensor):
            return moved.masked_scatter_(self.grown, fresh)
        return moved.masked_fill_(self.grown, fresh)
