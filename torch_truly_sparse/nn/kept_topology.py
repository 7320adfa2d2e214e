"""How a layer keeps the `Topology` of its buffer, and notices when somebody changes the buffer."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor

from .._torch_internals import transforms_active, version_of
from ..topology import Shape, Topology

_UNKNOWN = -1
"""The version of what compiled code adopted: the next eager use checks it."""


class KeptTopology:
    """The topology of one buffer `indices` in one version.

    A copy or a pickle starts empty: what is derived need not travel. A copy knows what it was made
    from, and warns once where another topology was copied over it in place: so the averages of
    `torch.optim.swa_utils` follow an evolution, mixing weights of different connections.

    Args:
        shape: (out_features, in_features) of the layer.
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._indices: Tensor | None = None
        self._version = 0
        self._topology: Topology | None = None
        self._transposed = False  # whether the column order has ever been asked for
        # The indices of a copy as they were copied, and their mark.
        self._copied: tuple[weakref.ref[Tensor], int] | None = None

    def of(self, indices: Tensor, *, transposed: bool = False) -> Topology:
        """Return the topology of `indices`, checking them first if they may have changed.

        Args:
            indices: (2, nnz), usually the tensor that was adopted; any other one takes its place
                (`torch.func.functional_call` lends a layer other tensors).
            transposed: whether the column order is needed.

        Raises:
            TypeError, ValueError: they are not a topology.

        Cost: nothing where nothing changed; otherwise O(nnz + out_features + in_features).

        Under `torch.func` and in an exported program nothing is kept, and the column order is not
        derived. Compiled code notices another tensor and all that is adopted, but not an edit in
        place, for a graph cannot ask a tensor's version.
        """
        compiling = torch.compiler.is_compiling()
        if compiling and torch.compiler.is_exporting():
            # The program must read the buffer, not what it held.
            return Topology.from_indices(indices, self._shape)
        unchanged = self._topology is not None and indices is self._indices
        if unchanged and not compiling:
            unchanged = version_of(indices) == self._version
        if not unchanged:
            derived = Topology.from_indices(indices, self._shape)
            if transforms_active():  # a transform's tensors are not to outlive it
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
        """Keep a checked topology, and drop what belonged to another.

        Where the column order has been asked for before, it is derived again at once: compiled code
        then finds everything as it was.

        Args:
            indices: (2, nnz) the buffer, checked.
            row_pointers: those of `indices`.
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
                "another topology was copied over that of this copy of a layer. If "
                "torch.optim.swa_utils.AveragedModel did so, its averages are of weights of "
                "different connections: use tts.nn.AveragedModel. If you did, assign "
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
    """A number that topologies share only if their units have, in all likelihood, equal fans."""
    pointers = topology.row_pointers
    places = torch.arange(pointers.shape[0], device=pointers.device)
    return int((pointers * (places * places + 1)).sum())
