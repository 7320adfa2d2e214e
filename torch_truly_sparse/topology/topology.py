"""The central object: which units are connected, as one immutable value."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch_internals import version_of
from ..ops import (
    CsrParts,
    TransposedOrder,
    compress,
    from_positions,
    merge,
    move,
    sample,
    to_positions,
    transpose,
)
from .counts import count_connections
from .fixed_fan_in import draw_fixed_fan_in
from .random import draw_seed
from .sizes import Shape, check_size, index_dtype

_UNKNOWN = -1
"""The version of indices in compiled code, which is not compared."""


class Topology:
    """The positions of the nonzeros of a matrix W (out_features, in_features).

    Made by `Topology.random`, `from_indices`, `from_positions` or `from_mask`, and held by every
    layer as `layer.topology`. It never changes: `replace` makes another one. It holds nothing of
    the size of the matrix, only coordinates, and what is derived from them.

    `layer.topology.indices` shares its memory with the buffer `layer.indices`. A layer that evolves
    writes its next topology into that buffer and makes a new object; the old object, whose memory
    is gone, then raises when it is asked for its indices. `copy.deepcopy(layer.topology)` outlives
    the change.

    Two topologies are equal where shape and positions are.

    Example:
        >>> topology = Topology.random(300, 784, density=0.05)
        >>> topology
        Topology(out_features=300, in_features=784, nnz=11760, density=0.05)
        >>> topology.indices.shape, topology.row_pointers.shape
        (torch.Size([2, 11760]), torch.Size([301]))
    """

    def __init__(self, indices: Tensor, shape: Shape, row_pointers: Tensor | None = None) -> None:
        """Trust what is given: the class methods check it, and are the way for everybody else.

        Args:
            indices: (2, nnz), contiguous, sorted, unique, of the dtype of `index_dtype`.
            shape: (out_features, in_features).
            row_pointers: (out_features + 1,) int64, or None: they are derived when first asked for.
        """
        self._indices = indices
        self._version = _version(indices)
        self._shape = shape
        self._parts = None if row_pointers is None else _parts(indices, shape, row_pointers)

    # Ways to make one

    @classmethod
    def random(
        cls,
        out_features: int,
        in_features: int,
        *,
        density: float | None = None,
        epsilon: float | None = None,
        nnz: int | None = None,
        fan_in: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Topology:
        """Draw a topology: every one with so many connections is equally likely.

        Args:
            out_features: number of output units.
            in_features: number of input units.
            density: fraction of all connections, in [0, 1], or
            epsilon: scale of an Erdos-Renyi topology, round(epsilon (in + out)) connections, or
            nnz: the number of connections, or
            fan_in: the number of inputs of every output unit. Exactly one of the four.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            On the CPU, new memory.

        Raises:
            TypeError: not exactly one of the four is given, or it has the wrong type.
            ValueError: a number is out of range.

        Cost: O(nnz) time and memory, whatever the size of the matrix. With `fan_in`, the time to
        sort the inputs of each unit on top.

        Source: Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3) for epsilon; Lasby et al. 2024,
        "Dynamic sparse training with structured sparsity" (arXiv 2305.02299), for fan_in.

        Example:
            >>> Topology.random(3, 100, fan_in=4).fan_in().tolist()
            [4, 4, 4]
        """
        shape = (out_features, in_features)
        if fan_in is not None:
            if density is not None or epsilon is not None or nnz is not None:
                raise TypeError(
                    "exactly one of `density`, `epsilon`, `nnz` and `fan_in` must be given"
                )
            with torch.inference_mode(False):
                return cls(draw_fixed_fan_in(shape, fan_in, generator=generator), shape)
        count = count_connections(
            out_features, in_features, density=density, epsilon=epsilon, nnz=nnz
        )
        positions = sample(out_features * in_features, count, draw_seed(generator))
        return cls.from_positions(positions, shape)

    @classmethod
    def from_indices(cls, indices: Tensor, shape: Shape) -> Topology:
        """Check coordinates that come from outside, and take them.

        Args:
            indices: (2, nnz) int32 or int64: output units above input units, sorted by output unit,
                then input unit, and unique.
            shape: (out_features, in_features).

        Returns:
            On the device of `indices`. It shares their memory where they are contiguous and of the
            narrowest dtype already, and notices if they are then changed in place.

        Raises:
            TypeError: not a strided tensor of int32 or int64.
            ValueError: of the wrong shape, out of range, unsorted or not unique; the text names the
                first offence.

        Cost: O(nnz + out_features).

        Example:
            >>> Topology.from_indices(torch.tensor([[0, 2], [1, 0]]), (3, 2)).nnz
            2
            >>> Topology.from_indices(torch.tensor([[0, 3], [1, 0]]), (3, 2))
            Traceback (most recent call last):
                ...
            ValueError: `indices[:, 1]` is (3, 0), whose output unit is outside [0, out_features) = [0, 3)
        """  # noqa: E501
        if not isinstance(indices, Tensor):
            raise TypeError(f"`indices` must be a torch.Tensor, got {type(indices).__name__}")
        if indices.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"`indices` must be int32 or int64, got {indices.dtype}")
        if indices.dim() != 2 or indices.shape[0] != 2:
            raise ValueError(
                "`indices` must have shape (2, nnz), output units above input units, "
                f"got {tuple(indices.shape)}"
            )
        if indices.layout != torch.strided:
            raise TypeError(f"`indices` must be a strided tensor, got layout {indices.layout}")
        with torch.inference_mode(False):  # what a layer keeps must serve training, too
            indices = indices.detach()
            row_pointers = compress(indices, shape)
            indices = indices.to(index_dtype(shape, indices.shape[1])).contiguous()
            return cls(indices, shape, row_pointers)

    @classmethod
    def from_positions(cls, positions: Tensor, shape: Shape) -> Topology:
        """Take the connections of the given positions, `out * in_features + in`.

        Args:
            positions: (nnz,) int64, increasing.
            shape: (out_features, in_features).

        Returns:
            On the device of `positions`, new memory.

        Raises:
            ValueError: positions are out of range, or do not increase.

        Cost: O(nnz + out_features).
        """
        check_size(shape)
        dtype = index_dtype(shape, positions.shape[0])
        with torch.inference_mode(False):
            indices = from_positions(positions, shape, dtype)
            return cls(indices, shape, compress(indices, shape))

    @classmethod
    def from_mask(cls, mask: Tensor) -> Topology:
        """Take the positions where a mask is not 0.

        Args:
            mask: (out_features, in_features), of any dtype.

        Returns:
            On the device of `mask`, new memory.

        Cost: O(out_features in_features) time, O(nnz) memory.

        Example:
            >>> Topology.from_mask(torch.eye(3)).indices.tolist()
            [[0, 1, 2], [0, 1, 2]]
        """
        out_features, in_features = mask.shape
        positions = mask.flatten().nonzero().squeeze(1)
        return cls.from_positions(positions, (out_features, in_features))

    # What it is

    @property
    def indices(self) -> Tensor:
        """(2, nnz), int32 where the sizes fit, otherwise int64; not to be written to.

        Output units above input units, sorted by output unit, then input unit, and unique.

        Raises:
            ValueError: they were changed in place since this topology was made.
        """
        if _version(self._indices) not in (self._version, _UNKNOWN) and self._version != _UNKNOWN:
            raise ValueError(
                "the indices of this topology were changed in place, so that it is no longer what "
                "it was: take `layer.topology` anew, or keep `copy.deepcopy(layer.topology)` "
                "through an evolution"
            )
        return self._indices

    @property
    def shape(self) -> Shape:
        """(out_features, in_features)."""
        return self._shape

    @property
    def out_features(self) -> int:
        """Number of output units."""
        return self._shape[0]

    @property
    def in_features(self) -> int:
        """Number of input units."""
        return self._shape[1]

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return self._indices.shape[1]

    @property
    def density(self) -> float:
        """Fraction of all possible connections that are there; 0 for an empty matrix."""
        positions = self._shape[0] * self._shape[1]
        return self.nnz / positions if positions else 0.0

    @property
    def device(self) -> torch.device:
        """Where the indices are."""
        return self._indices.device

    # What is derived from it, once

    @property
    def parts(self) -> CsrParts:
        """The tensors that the products read; the column order only where it has been derived.

        Cost: O(nnz + out_features) at the first call.
        """
        if self._parts is None:
            with torch.inference_mode(False):
                row_pointers = compress(self.indices, self._shape)
                self._parts = _parts(self._indices, self._shape, row_pointers)
        return self._parts

    @property
    def row_pointers(self) -> Tensor:
        """(out_features + 1,) int64: unit i has the connections row_pointers[i : i + 2].

        Cost: O(nnz + out_features) at the first call.
        """
        return self.parts.row_pointers

    @property
    def transposed(self) -> TransposedOrder:
        """The connections sorted by input unit, which input gradients of large batches read.

        Cost: O(nnz + out_features + in_features) at the first call; 8 bytes a connection with int32
        indices, kept with the topology.
        """
        known = self.parts.transposed
        if known is None:
            _ = self.indices  # raises where they were changed since
            with torch.inference_mode(False):
                known = transpose(self.parts)
            self._parts = CsrParts(*self.parts[:3], *known)
        return known

    def positions(self) -> Tensor:
        """Number the connections row by row, `out * in_features + in`.

        Returns:
            (nnz,) int64, increasing, new memory.

        Cost: O(nnz).
        """
        return to_positions(self.indices, None, self.nnz, self.in_features)

    def fan_in(self) -> Tensor:
        """Count the inputs of each output unit: (out_features,) int64, new memory."""
        return self.row_pointers.diff()

    def fan_out(self) -> Tensor:
        """Count the outputs of each input unit: (in_features,) int64, new memory; O(nnz)."""
        self.parts  # noqa: B018 (checks that every column lies in range)
        return torch.bincount(self.indices[1], minlength=self.in_features)

    def fingerprint(self) -> int:
        """Hash the topology to 64 bits, signed: equal on all machines of one byte order.

        Processes that must hold one topology compare these numbers.

        Cost: O(nnz).
        """
        digest = hashlib.blake2b(digest_size=8)
        for row in self.indices.cpu():
            digest.update(memoryview(row.contiguous().numpy()).cast("B"))
        return int.from_bytes(digest.digest(), "little", signed=True)

    # The next one

    def replace(self, dropped: Tensor, grown: Tensor) -> TopologyChange:
        """Make the next topology: without some connections, and with others.

        Args:
            dropped: (nnz,) bool, the connections that go.
            grown: (m,) int64 positions (`out * in_features + in`), increasing, none of them of a
                connection that stays.

        Returns:
            The next topology, and where each of its connections comes from.

        Raises:
            ValueError: the positions are not as asked, or shapes and dtypes do not fit.

        Cost: O(nnz + m) time; new memory for the next topology and one index a connection.

        Example:
            >>> topology = Topology.from_indices(torch.tensor([[0, 1, 1], [2, 0, 2]]), (2, 3))
            >>> change = topology.replace(torch.tensor([False, True, False]), torch.tensor([1]))
            >>> change.topology.indices.tolist()
            [[0, 0, 1], [1, 2, 2]]
            >>> change.move(torch.tensor([10.0, 20.0, 30.0]), 0.5).tolist()
            [0.5, 10.0, 30.0]
        """
        survivors = self.nnz - int(torch.count_nonzero(dropped))
        dtype = index_dtype(self._shape, max(self.nnz, survivors + grown.shape[0]))
        with torch.inference_mode(False):
            indices, source = merge(self.indices, dropped, grown, survivors, self._shape, dtype)
        return TopologyChange(Topology(indices, self._shape), source)

    def survivors(self, dropped: Tensor, count: int) -> Tensor:
        """Number the connections that stay, as `positions` does.

        Args:
            dropped: (nnz,) bool, the connections that go.
            count: how many stay.

        Returns:
            (count,) int64, increasing, new memory.

        Cost: O(nnz).
        """
        return to_positions(self.indices, dropped, count, self.in_features)

    def to(self, device: torch.device | str) -> Topology:
        """Return the topology on a device: itself where it is there already."""
        if self._indices.device == torch.device(device):
            return self
        row_pointers = None if self._parts is None else self._parts.row_pointers.to(device)
        return Topology(self.indices.to(device), self._shape, row_pointers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return self._shape == other._shape and torch.equal(self.indices, other.indices)

    def __hash__(self) -> int:
        return hash((self._shape, self.nnz))

    def __repr__(self) -> str:
        return (
            f"Topology(out_features={self.out_features}, in_features={self.in_features}, "
            f"nnz={self.nnz}, density={self.density:.4g})"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Topology:
        return Topology(copy.deepcopy(self.indices, memo), self._shape)

    def __reduce__(self) -> tuple[Any, tuple[Tensor, Shape]]:
        return Topology.from_indices, (self.indices, self._shape)


class TopologyChange(NamedTuple):
    """What `Topology.replace` returns.

    Attributes:
        topology: the next one.
        source: (its nnz,) where each of its connections comes from: the number of a connection
            before, or ~g (-1 - g) for the grown position number g. Those that stay keep their
            relative order.
    """

    topology: Topology
    source: Tensor

    def move(self, entries: Tensor, fresh: Tensor | float) -> Tensor:
        """Carry one number per connection over to the next topology.

        Args:
            entries: (nnz before,) in the order of before.
            fresh: (number grown,) for the new connections in their order, or one number for all.

        Returns:
            (nnz,) in the order of the next topology, new memory.

        Cost: O(nnz).
        """
        return move(entries, self.source, fresh)


def _parts(indices: Tensor, shape: Shape, row_pointers: Tensor) -> CsrParts:
    return CsrParts(row_pointers, indices[1], shape[1])


def _version(indices: Tensor) -> int:
    """Count the changes in place; compiled code cannot ask."""
    return _UNKNOWN if torch.compiler.is_compiling() else version_of(indices)
