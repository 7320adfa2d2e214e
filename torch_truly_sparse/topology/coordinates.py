"""Sorted, unique coordinates, and their linear positions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import positions as positions_ops
from ..ops.compress import compress

_INT32_MAX = torch.iinfo(torch.int32).max
_INT64_MAX = torch.iinfo(torch.int64).max


def index_dtype(out_features: int, in_features: int, nnz: int) -> torch.dtype:
    """Name the narrowest dtype that holds every index of such a topology: int32 or int64."""
    fits = max(out_features, in_features, nnz) <= _INT32_MAX
    return torch.int32 if fits else torch.int64


def check_indices(indices: Tensor, out_features: int, in_features: int) -> tuple[Tensor, Tensor]:
    """Check a topology that comes from outside.

    Args:
        indices: (2, nnz) int32 or int64, sorted by output unit, then input unit, and unique.
        out_features: number of output units.
        in_features: number of input units.

    Returns:
        The indices, contiguous and of the narrowest dtype (new memory only where one of these
        changed), and their row pointers (out_features + 1,) int64.

    Raises:
        TypeError: not a tensor of int32 or int64.
        ValueError: wrong shape, out of range, unsorted or not unique.

    Cost: O(nnz + out_features).
    """
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
    with torch.inference_mode(False):  # a layer keeps these, and they must serve training, too
        indices = indices.detach()
        crow_indices = compress(indices, out_features, in_features)
        dtype = index_dtype(out_features, in_features, indices.shape[1])
        return indices.to(dtype).contiguous(), crow_indices


def check_size(out_features: int, in_features: int) -> None:
    """Raise a ValueError unless every position of such a matrix has a 64-bit number."""
    if out_features < 0 or in_features < 0:
        raise ValueError(
            "`in_features` and `out_features` must not be negative, got "
            f"{in_features} and {out_features}"
        )
    if out_features * in_features > _INT64_MAX // 2:
        raise ValueError(
            "`in_features` times `out_features` must stay below 2**62, got "
            f"{in_features} x {out_features}"
        )


def to_positions(indices: Tensor, in_features: int) -> Tensor:
    """Number the connections row by row: `out * in_features + in`.

    Args:
        indices: (2, nnz) topology.
        in_features: number of input units.

    Returns:
        (nnz,) int64, increasing, new memory.

    Cost: O(nnz).
    """
    return positions_ops.to_positions(indices, None, indices.shape[1], in_features)


def from_positions(positions: Tensor, out_features: int, in_features: int) -> Tensor:
    """Invert `to_positions`.

    Args:
        positions: (nnz,) int64.
        out_features: number of output units.
        in_features: number of input units.

    Returns:
        (2, nnz) of the narrowest dtype, new memory.

    Raises:
        ValueError: a position lies outside [0, out_features * in_features).

    Cost: O(nnz).
    """
    dtype = index_dtype(out_features, in_features, positions.shape[0])
    return positions_ops.from_positions(positions, out_features, in_features, dtype)
