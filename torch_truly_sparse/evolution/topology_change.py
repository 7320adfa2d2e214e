"""One step from a topology to the next, and how tensors follow it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..nn import SparseLayer
from ..ops import merge, move
from ..topology import index_dtype


@dataclass(frozen=True)
class TopologyChange:
    """The next topology of a layer, and what becomes of each connection.

    Attributes:
        indices: (2, nnz) the next topology, sorted and unique.
        source: (nnz,) where each connection comes from: its number in the present topology, or
            ~g (-1 - g) for the regrown one number g. Survivors keep their relative order.
    """

    indices: Tensor
    source: Tensor

    @classmethod
    def merge(
        cls,
        indices: Tensor,
        dropped: Tensor,
        regrown: Tensor,
        out_features: int,
        in_features: int,
    ) -> TopologyChange:
        """Put survivors and regrown connections into one sorted order.

        Args:
            indices: (2, nnz before) the present topology.
            dropped: (nnz before,) bool, the connections that go.
            regrown: (m,) int64 positions, increasing, none of them a survivor.
            out_features: number of output units.
            in_features: number of input units.

        Raises:
            ValueError: `regrown` does not increase, holds a survivor or leaves the matrix, or
                `indices` is no topology of a matrix of this size.

        Cost: O(nnz before + m) time; new memory for the two attributes.
        """
        before, m = dropped.shape[0], regrown.shape[0]
        survivors = before - int(torch.count_nonzero(dropped))
        dtype = index_dtype(out_features, in_features, max(before, survivors + m))
        return cls(*merge(indices, dropped, regrown, survivors, out_features, in_features, dtype))

    @property
    def grown(self) -> Tensor:
        """(nnz,) bool, True for the connections that are new."""
        return self.source < 0

    def move(self, entries: Tensor, fresh: Tensor | float) -> Tensor:
        """Carry one number per connection over to the next topology.

        Args:
            entries: (nnz before,) in the present order.
            fresh: (number regrown,) for the new connections in their order, or one number for
                all of them.

        Returns:
            (nnz,) in the next order, new memory.

        Cost: O(nnz).
        """
        return move_entries(entries, self.source, fresh)


def move_entries(entries: Tensor, source: Tensor, fresh: Tensor | float) -> Tensor:
    """Carry one number per connection over, as `TopologyChange.move` does, by `source` alone."""
    if not isinstance(fresh, Tensor):
        fresh = torch.full((), fresh, dtype=entries.dtype, device=entries.device)
    return move(entries, source, fresh)


@torch.no_grad()
def resize(
    layer: SparseLayer, change: TopologyChange, followers: Sequence[tuple[Tensor, Tensor | float]]
) -> None:
    """Apply a change of topology that may change the number of connections.

    The parameter, its gradient and the optimizer's state entries stay the same objects, with
    memory of another size beneath them, so that no optimizer is left with a stale tensor.

    Args:
        layer: the layer.
        change: its next topology.
        followers: the layer's `weight_parameter`, its `grad` and all state entries of its shape,
            each with the entries of new connections, (number grown,) or one number for all.

    Raises:
        ValueError: the layer's nnz is fixed (`SparseLayer.nnz_fixed_by`); nothing is changed.

    Cost: O(nnz).
    """
    parameter = layer.weight_parameter
    gradient = parameter.grad
    moved = [(tensor, change.move(layer.gather(tensor), fresh)) for tensor, fresh in followers]
    layer.resize_topology(change.indices)
    for tensor, entries in moved:
        if tensor.shape == parameter.shape:
            layer.scatter_(tensor, entries)
        else:
            tensor.data = entries
    parameter.grad = gradient
