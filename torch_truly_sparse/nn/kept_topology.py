"""How a layer keeps the `Topology` of its buffer, and notices when the buffer is changed."""

from __future__ import annotations

import contextlib
import warnings
import weakref
from typing import Any

import torch
from torch import Tensor

from .._torch_internals import has_content, transforms_active, version_of
from ..ops import compress_again
from ..topology import Shape, Topology, check_seal

_SAMPLE = 64

_UNKNOWN = -1
"""The version recorded for indices adopted in compiled code; the next eager use checks them."""


_REMEDY = (
    ". Assign `layer.indices = ...` instead of writing into it; for averages of weights use "
    "tts.nn.AveragedModel, which does not average the topology; or load a saved state again"
)


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
        # The buffers of indices and seal, as far as they are known.
        self._own: tuple[Tensor, Tensor] | None = None
        self._indices: Tensor | None = None
        self._version = 0
        self._topology: Topology | None = None
        self._transposed = False  # whether the order by columns was ever derived
        self.changes = 0  # how often the layer got another topology
        # Of a copy only: that of the original, and how often it had changed.
        self.origin: tuple[weakref.ref[KeptTopology], int] | None = None
        self._sample: Tensor | None = None  # some weights of a copy, as they were copied
        # Of a copy only: the indices that it began with, and the mark of their topology.
        self._copied: tuple[weakref.ref[Tensor], int] | None = None

    def of(self, indices: Tensor, seal: Tensor, *, transposed: bool = False) -> Topology:
        """Return the topology of `indices`, checking them first if they may have changed.

        Args:
            indices: (2, nnz), usually the tensor that was adopted. Any other tensor takes its place
                (`torch.func.functional_call` lends a layer other tensors).
            seal: (192,) int8, the seal of the indices; indices that are lent without a seal of
                their own need none.
            transposed: whether the order by columns is needed.

        Raises:
            TypeError, ValueError: `indices` are not a topology of this shape, or not that of the
                seal.

        Cost: O(1) where nothing changed; otherwise O(nnz + out_features + in_features).

        Under `torch.func` and in an exported program nothing more is kept, and the order by columns
        is not derived. Compiled code notices another tensor and every adopted topology, but no edit
        in place, because a graph cannot read the version of a tensor.
        """
        compiling = torch.compiler.is_compiling()
        if compiling and torch.compiler.is_exporting():
            return self._exported(indices)
        unchanged = self._topology is not None and indices is self._indices
        if unchanged and not compiling:
            unchanged = version_of(indices) == self._version
        if not unchanged:
            lent = self._own is not None and indices is not self._own[0]
            plain = compiling or (lent and self._own is not None and seal is self._own[1])
            derived = (
                Topology.from_indices(indices, self._shape)
                if plain
                else self.checked(indices, seal)
            )
            if transforms_active():  # its tensors must not outlive the transform
                return derived
            if not lent and not compiling:
                self._own = indices, seal
            self._keep(indices, derived)
            self._warn_of_averages(indices, derived)
        topology = self._topology
        assert topology is not None
        if transposed and topology.parts.ccol_indices is None and not transforms_active():
            _ = topology.transposed  # derives and keeps it
            self._transposed = True
        return topology

    def _exported(self, indices: Tensor) -> Topology:
        """Return a topology whose row pointers an exported program finds in O(out_features).

        The program must read the buffer, not what the buffer held at the export: the row pointers
        of now, which become a constant of the program, are compared with it at each call.
        """
        known = self._topology
        if known is None:
            return Topology.from_indices(indices, self._shape)
        row_pointers = compress_again(indices, known.parts.row_pointers, self._shape)
        return Topology(indices, self._shape, row_pointers)

    def checked(self, indices: Tensor, seal: Tensor) -> Topology:
        """Return the topology of a buffer and its seal, checked anew, and keep nothing.

        Raises:
            TypeError, ValueError: `indices` are not a topology of this shape, or not that of the
                seal.
        """
        try:
            topology = Topology.from_indices(indices, self._shape)
        except ValueError as error:
            raise ValueError(f"{error}. The indices were changed in place{_REMEDY}") from None
        if has_content(indices) and has_content(seal) and not transforms_active():
            check_seal(topology, seal, _REMEDY)
        return topology

    def adopt(self, indices: Tensor, row_pointers: Tensor, seal: Tensor) -> None:
        """Keep a checked topology in place of the previous one.

        If the order by columns was ever derived, it is derived for this topology at once, so that
        compiled code finds the same tensors as before.

        Args:
            indices: (2, nnz) the buffer, checked.
            row_pointers: (out_features + 1,) int64, the row pointers of `indices`.
            seal: (192,) int8, the buffer of their seal.
        """
        self._copied = None
        self._own = indices, seal
        topology = Topology(indices, self._shape, row_pointers)
        self._keep(indices, topology)
        if self._transposed:
            with contextlib.suppress(MemoryError, RuntimeError):  # then the next use derives it
                _ = topology.transposed

    def note_change(self) -> None:
        """Note that the topology is another one now."""
        self.origin = None
        self.changes += 1

    def forget(self, indices: Tensor, seal: Tensor) -> None:
        """Drop everything: the next use checks and derives again.

        Args:
            indices: (2, nnz) the buffer.
            seal: (192,) int8, the buffer of their seal.
        """
        self._own = indices, seal
        self._indices = self._topology = None

    def warn_of_foreign(self, values: Tensor) -> None:
        """Warn, once, where a copy's values were probably averaged with those of an evolved layer.

        That is so where they were written to although they need no gradient, so that no optimizer
        did it, and the original has evolved meanwhile, and the copy has not.

        Args:
            values: the weights of the copy.
        """
        if self.origin is None or torch.compiler.is_compiling():
            return
        origin, changes = self.origin[0](), self.origin[1]
        if origin is None:
            self.origin = None
        elif origin.changes != changes and not values.requires_grad and self._written(values):
            self.origin = None
            warnings.warn(
                "the weights of this copy of a layer were written to since the layer it was copied "
                "from has evolved, and the copy has the topology from before. If an average of "
                "weights did so (an EMA that leaves integers alone), it mixes weights of different "
                "connections: use tts.nn.AveragedModel.",
                stacklevel=3,
            )

    def note_copy(self, values: Tensor) -> None:
        """Note some weights of a fresh copy, to see later whether they were written to.

        The versions of tensors do not tell: averages are often written through `.data`.
        """
        if self.origin is not None:
            self._sample = values.detach()[:_SAMPLE].clone()

    def _written(self, values: Tensor) -> bool:
        return self._sample is not None and not torch.equal(values[:_SAMPLE], self._sample)

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
        copied.origin = weakref.ref(self), self.changes
        if self._own is not None:
            own, seal = (memo.get(id(buffer)) for buffer in self._own)
            copied._own = None if own is None or seal is None else (own, seal)
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
