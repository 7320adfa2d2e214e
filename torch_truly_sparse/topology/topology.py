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
from .sizes import Shape, as_shape, index_dtype

_UNKNOWN = -1
"""The version recorded in compiled code, which cannot read versions; it is never compared."""


class Topology:
    """The positions of the nonzeros of a matrix W (out_features, in_features).

    `Topology.random`, `from_indices`, `from_positions` and `from_mask` make a topology, and every
    layer holds one as `layer.topology`. A topology never changes; `replace` makes another one. It
    holds coordinates and what is derived from them, and nothing of the size of W.

    `layer.topology.indices` shares its memory with the buffer `layer.indices`. A layer that evolves
    writes its next topology into that buffer and makes a new object. The indices of the old object
    are then overwritten, and reading them raises an error. `copy.deepcopy(layer.topology)` outlives
    the change.

    Two topologies are equal if they have the same shape and the same positions.

    Example:
        >>> topology = Topology.random(300, 784, density=0.05)
        >>> topology
        Topology(out_features=300, in_features=784, nnz=11760, density=0.05)
        >>> topology.indices.shape, topology.row_pointers.shape
        (torch.Size([2, 11760]), torch.Size([301]))
    """

    def __init__(self, indices: Tensor, shape: Shape, row_pointers: Tensor | None = None) -> None:
        """Take checked arguments; users call the class methods, which check them.

        Args:
            indices: (2, nnz), contiguous, sorted, unique, of the dtype of `index_dtype`.
            shape: (out_features, in_features).
            row_pointers: (out_features + 1,) int64, or None to derive them when first needed.
        """
        self._indices = indices
        self._version = _version(indices)
        self._shape = shape
        self._parts = None if row_pointers is None else _parts(indices, shape, row_pointers)

    # Ways to make a topology

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
        """Draw a topology, every one of the given number of connections equally likely.

        Args:
            out_features: number of output units.
            in_features: number of input units.
            density: fraction of all possible connections, in [0, 1], or
            epsilon: scale of an Erdos-Renyi topology, round(epsilon (in + out)) connections, or
            nnz: the number of connections, or
            fan_in: the number of inputs of every output unit, every choice of inputs equally
                likely. Exactly one of the four must be given.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            A topology on the CPU, in new memory.

        Raises:
            TypeError: not exactly one of the four is given, or an argument has the wrong type.
            ValueError: a number is out of range.

        Cost: O(nnz + out_features) time and memory. With `fan_in`, sorting the inputs of each unit
        takes O(nnz log fan_in) time.

        Source: Sanders et al. 2018, "Efficient parallel random sampling" (doi 10.1145/3157734), for
        the sampling; Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3) for epsilon; Lasby et al.
        2024, "Dynamic sparse training with structured sparsity" (arXiv 2305.02299), for fan_in.

        Example:
            >>> Topology.random(3, 100, fan_in=4).fan_in().tolist()
            [4, 4, 4]
        """
        shape = out_features, in_features = as_shape((out_features, in_features))
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
        """Make a topology of the given coordinates, after checking them.

        Args:
            indices: (2, nnz) int32 or int64: output units above input units, sorted by output unit,
                then input unit, and unique.
            shape: (out_features, in_features).

        Returns:
            A topology on the device of `indices`. It shares their memory if they are contiguous and
            of the dtype of `index_dtype`; if they are changed in place later, its next use raises.

        Raises:
            TypeError: `indices` is not a strided tensor of int32 or int64, or `shape` not a pair of
                integers.
            ValueError: a size is out of range, `indices` has the wrong shape, or it holds coordinates that are out of range,
                unsorted or not unique; the text names the first such entry.

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
        shape = as_shape(shape)
        with torch.inference_mode(False):  # what a layer keeps must serve training, too
            indices = indices.detach()
            row_pointers = compress(indices, shape)
            indices = indices.to(index_dtype(shape, indices.shape[1])).contiguous()
            return cls(indices, shape, row_pointers)

    @classmethod
    def from_positions(cls, positions: Tensor, shape: Shape) -> Topology:
        """Make a topology of the connections at the given positions, `out * in_features + in`.

        Args:
            positions: (nnz,) int64, increasing.
            shape: (out_features, in_features).

        Returns:
            A topology on the device of `positions`, in new memory.

        Raises:
            TypeError: `positions` is not a tensor, or `shape` not a pair of integers.
            ValueError: the positions are out of range or do not increase, or are not a
                one-dimensional int64 tensor.

        Cost: O(nnz + out_features).
        """
        shape = as_shape(shape)
        if not isinstance(positions, Tensor):
            raise TypeError(f"`positions` must be a torch.Tensor, got {type(positions).__name__}")
        dtype = index_dtype(shape, positions.numel())
        with torch.inference_mode(False):
            indices = from_positions(positions, shape, dtype)
            return cls(indices, shape, compress(indices, shape))

    @classmethod
    def from_mask(cls, mask: Tensor) -> Topology:
        """Make a topology of the positions where a mask is not 0.

        Args:
            mask: (out_features, in_features), of any dtype.

        Returns:
            A topology on the device of `mask`, in new memory.

        Raises:
            ValueError: `mask` is no tensor of two dimensions.

        Cost: O(out_features in_features) time, O(nnz + out_features) memory.

        Example:
            >>> Topology.from_mask(torch.eye(3)).indices.tolist()
            [[0, 1, 2], [0, 1, 2]]
        """
        if not isinstance(mask, Tensor) or mask.dim() != 2:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"`mask` must be a tensor of shape (out_features, in_features), got {got}"
            )
        out_features, in_features = mask.shape
        positions = mask.flatten().nonzero().squeeze(1)
        return cls.from_positions(positions, (out_features, in_features))

    # What a topology holds

    @property
    def indices(self) -> Tensor:
        """The coordinates (2, nnz), int32 where the sizes fit, otherwise int64.

        Do not write to them. Row 0 holds output units, row 1 input units. The coordinates are
        sorted by output unit, then input unit, and are unique.

        Raises:
            ValueError: the coordinates were changed in place since this topology was made.
        """
        if _version(self._indices) not in (self._version, _UNKNOWN) and self._version != _UNKNOWN:
            raise ValueError(
                "the indices of this topology were changed in place, so that the topology is no "
                "longer valid: take `layer.topology` again, or keep "
                "`copy.deepcopy(layer.topology)` through an evolution"
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
        """Fraction of the possible connections that exist; 0 for a matrix without positions."""
        positions = self._shape[0] * self._shape[1]
        return self.nnz / positions if positions else 0.0

    @property
    def device(self) -> torch.device:
        """The device of the indices."""
        return self._indices.device

    # What is derived from the indices

    @property
    def parts(self) -> CsrParts:
        """The tensors that the products read, with the order by columns if it has been derived.

        Cost: O(nnz + out_features) at the first call.
        """
        if self._parts is None:
            with torch.inference_mode(False):
                row_pointers = compress(self.indices, self._shape)
                self._parts = _parts(self._indices, self._shape, row_pointers)
        return self._parts

    @property
    def row_pointers(self) -> Tensor:
        """(out_features + 1,) int64: output unit i has connections [pointer i, pointer i + 1).

        Cost: O(nnz + out_features) at the first call.
        """
        return self.parts.row_pointers

    @property
    def transposed(self) -> TransposedOrder:
        """The order by columns: the connections sorted by input unit, then output unit.

        Input gradients of large batches read it.

        Cost: O(nnz + out_features + in_features) time at the first call, and memory that is kept
        with the topology: 8 bytes a connection with int32 indices, 8 bytes an input unit.
        """
        known = self.parts.transposed
        if known is None:
            _ = self.indices  # raises where they were changed since
            with torch.inference_mode(False):
                known = transpose(self.parts)
            self._parts = CsrParts(*self.parts[:3], *known)
        return known

    def positions(self) -> Tensor:
        """Return the position of each connection, `out * in_features + in`.

        Returns:
            (nnz,) int64, increasing, new memory.

        Cost: O(nnz).
        """
        return to_positions(self.indices, None, self.nnz, self.in_features)

    def fan_in(self) -> Tensor:
        """Return the number of inputs of each output unit: (out_features,) int64, new memory."""
        return self.row_pointers.diff()

    def fan_out(self) -> Tensor:
        """Return the number of outputs of each input unit: (in_features,) int64, new memory.

        Cost: O(nnz + in_features).
        """
        self.parts  # noqa: B018 (checks that every column lies in range)
        return torch.bincount(self.indices[1], minlength=self.in_features)

    def fingerprint(self) -> int:
        """Return a signed 64-bit hash, equal for equal topologies on machines of one byte order.

        Processes that must hold the same topology compare their hashes.

        Cost: O(nnz).
        """
        digest = hashlib.blake2b(repr(self._shape).encode(), digest_size=8)
        for row in self.indices.cpu():
            digest.update(memoryview(row.contiguous().numpy()).cast("B"))
        return int.from_bytes(digest.digest(), "little", signed=True)

    # The next topology

    def replace(self, dropped: Tensor, grown: Tensor) -> TopologyChange:
        """Return the topology without the dropped and with the grown connections.

        Args:
            dropped: (nnz,) bool, True for each connection that is dropped.
            grown: (m,) int64 positions (`out * in_features + in`) of new connections, increasing;
                no connection that stays may have one of them.

        Returns:
            The next topology, and where each of its connections comes from.

        Raises:
            ValueError: `grown` does not increase, leaves the matrix or holds the position of a
                connection that stays, or shapes and dtypes do not fit.

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
        """Return the positions of the connections that are not dropped, `out * in_features + in`.

        Args:
            dropped: (nnz,) bool, True for each connection that is dropped.
            count: number of connections that are not dropped.

        Returns:
            (count,) int64, increasing, new memory.

        Raises:
            ValueError: `count` is wrong, or shapes and dtypes do not fit.

        Cost: O(nnz).
        """
        return to_positions(self.indices, dropped, count, self.in_features)

    def to(self, device: torch.device | str) -> Topology:
        """Return the topology on a device: itself if it is there already, otherwise a copy."""
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
        topology: the next topology.
        source: (topology.nnz,) where each connection of `topology` comes from: i for connection i
            of the old topology, ~g (which is -1 - g) for `grown[g]`. Connections that stay keep
            their relative order.
    """

    topology: Topology
    source: Tensor

    def move(self, entries: Tensor, fresh: Tensor | float) -> Tensor:
        """Carry one number per connection over to the next topology.

        Args:
            entries: (nnz of the old topology,) in the order of that topology.
            fresh: (number of grown connections,) in the order of `grown`, of the dtype of
                `entries`, or one number for all grown connections.

        Returns:
            (topology.nnz,) in the order of the next topology, new memory.

        Raises:
            ValueError: shapes or dtypes do not fit.

        Cost: O(nnz).
        """
        return move(entries, self.source, fresh)


def _parts(indices: Tensor, shape: Shape, row_pointers: Tensor) -> CsrParts:
    return CsrParts(row_pointers, indices[1], shape[1])


def _version(indices: Tensor) -> int:
    """Return how often the indices were changed in place; compiled code cannot read it."""
    return _UNKNOWN if torch.compiler.is_compiling() else version_of(indices)
