"""The seal of a topology: the shape of the matrix and a checksum of the connections, as bits.

A layer keeps the seal beside `indices`, as a buffer that is saved and copied with them. Whoever
changes one without the other is noticed: code that averages every buffer rounds indices to others,
and a saved state may belong to a matrix of another shape. Each bit is a number, whose sign counts:
averages of equal seals keep the signs, however they round, so a topology that is fixed may be
averaged by code that treats all buffers alike.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import Tensor

from .sizes import Shape
from .topology import Topology

SEAL_BITS = 192
"""Bits of a seal: 64 each for out_features, in_features and the checksum."""

_SIZE = 7
"""A bit is 7 or -7: far from 0, and the sum of many seals still fits into int8."""


def seal_of(topology: Topology) -> Tensor:
    """Return the seal of a topology: (192,) int8, on its device.

    Cost: O(nnz + out_features), about 2 ms for a million connections.
    """
    checksum = zlib.crc32(_bytes(topology.indices[1])) << 32 | zlib.crc32(
        _bytes(topology.row_pointers)
    )
    words = np.array([*topology.shape, checksum], dtype="<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.int8)
    return torch.from_numpy((2 * bits - 1) * _SIZE).to(topology.device)


def sealed_shape(seal: Tensor) -> Shape:
    """Return (out_features, in_features) as a seal says them."""
    bits = seal.detach().cpu().numpy() > 0
    words = np.packbits(bits, bitorder="little").view("<u8")
    return int(words[0]), int(words[1])


def is_seal(tensor: object) -> bool:
    """Return whether a tensor has the form of a seal."""
    return (
        isinstance(tensor, Tensor)
        and tensor.shape == (SEAL_BITS,)
        and tensor.dtype == torch.int8
        and tensor.layout == torch.strided
    )


def check_seal(topology: Topology, seal: Tensor, remedy: str) -> None:
    """Check that connections and seal belong together.

    Args:
        topology: the connections, checked.
        seal: (192,) int8.
        remedy: what to do, the end of the error's text.

    Raises:
        ValueError: the seal is of a matrix of another shape, or of other connections.

    Cost: that of `seal_of`.
    """
    if torch.equal(seal_of(topology).to(seal.device).sign(), seal.detach().sign()):
        return
    sealed = sealed_shape(seal)
    if sealed != topology.shape:
        raise ValueError(
            f"`seal` says that the connections are of a matrix of shape {sealed} (out_features, "
            f"in_features), not {topology.shape}{remedy}"
        )
    raise ValueError(
        f"`indices` are not the connections that their `seal` was made of: they were changed "
        f"without it{remedy}"
    )


def _bytes(row: Tensor) -> memoryview:
    return memoryview(row.cpu().contiguous().numpy()).cast("B")  # type: ignore[arg-type]
