"""How a layer keeps the `Topology` of its buffer, and notices when the buffer is changed."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor

from .._torch_internals import transforms_active, version_of
from ..topology import Shape, Topology

_UNKNOWN = -1
"""The version recorded for indices adopted in compiled code; the next eager use checks them."""


class KeptTopology:
    """The topology of one buffer `indices` in one version.

    A copy or a pickle of this object starts empty and derives its topology anew. A copy remembers
    the topology of the original, and warns once when another topology is copied over its own in
    place: `torch.optim.swa_utils.AveragedModel` does so after an evolution, and its averages then
    mix weights of different connections.

    Args:
        shape: (out_features, in_features) of the layer.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._indices: Tensor | None = None
        self._version = 0
        self._topology: Topology | None = None
        self._transposed = False  # whether the order by columns was ever derived
        # Of a copy only: the indices that it began with, and the mark of their topology.
        self._copied: tuple[weakref.ref[Tensor], int] | None = None

    def of(self, indices: Tensor, *, transposed: bool = False) -> Topology:
        """Return the topology of `indices`, checking them first if they may have changed.

        Args:
            indices: (2, nnz), usually the tensor that was adopted. Any other tensor takes its place
                (`torch.func.functional_call` lends a layer other tensors).
            transposed: whether the order by columns is needed.

        Raises:
            TypeError, ValueError: `indices` are not a topology of this shape.

        Cost: O(1) where nothing changed; otherwise O(nnz + out_features + in_features).

        Under `torch.func` and in an exported program nothing is kept, and the order by columns is
        not derived. Compiled code notices another tensor and every adopted topology, but no edit in
        place, because a graph cannot read the version of a tensor.
        """
        compiling = torch.compiler.is_compiling()
        if compiling and torch.compiler.is_exporting():
            # The program must read the buffer, not what the buffer held at the export.
            return Topology.from_indices(indices, self._shape)
        unchanged = self._topology is not None and indices is self._indices
        if unchanged and not compiling:
            unchanged = version_of(indices) == self._version
        if not unchanged:
            derived = Topology.from_indices(indices, self._shape)
            if transforms_active():  # its tensors must not outlive the transform
                return derived
            self._keep(indices, derived)
            self._warn_of_averages(indices, derived)
        topology = self._topology
        assert topology is not None
        if transposed and topology.parts.ccol_indices is None and not transforms_active():
            _ = topology.transposed  # derives and keeps it
            self._transposed = True
        return topology

    def adopt(self, indices: Tensor, row_pointers: Tensor) -> None:
        """Keep a checked topology in place of the previous one.

        If the order by columns was ever derived, it is derived for this topology at once, so that
        compiled code finds the same tensors as before.

        Args:
            indices: (2, nnz) the buffer, checked.
            row_pointers: (out_features + 1,) int64, the row pointers of `indices`.
        """
        self._copied = None
        topology = Topology(indices, self._shape, row_pointers)
        self._keep(indices, topology)
        if self._transposed:
            _ = topology.transposed

    def forget(self) -> None:
        """Drop everything: the next use checks and derives again."""
        self._indices = self._topology = None

    def _keep(self, indices: Tensor, topology: Topology) -> None:
        compiling = torch.compiler.is_compiling()
        self._version = _UNKNOWN if compiling else version_of(indices)
        self._indices, self._topology = indices, topology

    def _warn_of_averages(self, indices: Tensor, topology: Topology) -> None:
        if torch.compiler.is_compiling() or self._copied is None:
            return
        copied, mark = self._copied
        if indices is copied() and _mark(topology) != mark:
            self._copied = None
            warnings.warn(
                "another topology was copied over the topology of this copy of a layer. If "
                "torch.optim.swa_utils.AveragedModel did so, its averages mix weights of "
                "different connections: use tts.nn.AveragedModel. If your own code did so, assign "
                "`layer.indices` instead.",
                stacklevel=2,
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> KeptTopology:
        copied = KeptTopology(self._shape)
        indices = None if self._indices is None else memo.get(id(self._indices))
        if indices is not None and self._topology is not None and not indices.is_meta:
            copied._copied = weakref.ref(indices), _mark(self._topology)
        return copied

    def __reduce__(self) -> tuple[type[KeptTopology], tuple[Shape]]:
        return KeptTopology, (self._shape,)


def _mark(topology: Topology) -> int:
    """Return a number that very probably differs where the fan-ins of two topologies differ."""
    pointers = topology.row_pointers
    places = torch.arange(pointers.shape[0], device=pointers.device)
    return int((pointers * (places * places + 1)).sum())
