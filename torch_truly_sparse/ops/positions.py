"""Coordinates and linear positions, and the positions that are empty."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def to_positions(indices: Tensor, dropped: Tensor | None, count: int, in_features: int) -> Tensor:
    """Number connections row by row, `out * in_features + in`, leaving out the dropped ones.

    Args:
        indices: (2, nnz) int32 or int64.
        dropped: (nnz,) bool, True for each connection to leave out, or None to keep all.
        count: number of connections that are not dropped.
        in_features: number of input units.

    Returns:
        (count,) int64 in the order of `indices`, new memory.

    Raises:
        ValueError: shapes, dtypes or `count` do not fit.

    Cost: O(nnz).
    """
    output: Tensor = operators.to_positions(indices, dropped, count, in_features)
    return output


@fake("to_positions")
def _to_positions_fake(
    indices: Tensor, dropped: Tensor | None, count: int, in_features: int
) -> Tensor:
    return indices.new_empty((count,), dtype=torch.int64)


@plain_torch("to_positions")
def to_positions_reference(
    indices: Tensor, dropped: Tensor | None, count: int, in_features: int
) -> Tensor:
    """Compute `to_positions` in plain torch, on any device."""
    positions = indices[0].to(torch.int64, copy=True).mul_(in_features).add_(indices[1])
    if dropped is not None:
        positions = positions[~dropped]
    if positions.shape[0] != count:
        raise ValueError(
            f"`count` must be {positions.shape[0]}, the number of connections that are not "
            f"dropped, got {count}"
        )
    return positions


def from_positions(positions: Tensor, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """Turn linear positions p into coordinates (p // in_features, p % in_features).

    This is the inverse of `to_positions`.

    Args:
        positions: (nnz,) int64 in [0, out_features * in_features); fastest if increasing.
        shape: (out_features, in_features).
        dtype: int32 or int64, the dtype of the result; it must hold the sizes.

    Returns:
        (2, nnz) of `dtype`, new memory.

    Raises:
        ValueError: a position is out of range, or sizes and dtypes do not fit.

    Cost: O(nnz).
    """
    narrow = dtype == torch.int32
    output: Tensor = operators.from_positions(positions, *shape, narrow)
    return output


@fake("from_positions")
def _from_positions_fake(
    positions: Tensor, out_features: int, in_features: int, narrow: bool
) -> Tensor:
    return positions.new_empty((2, positions.shape[0]), dtype=_index_dtype(narrow))


@plain_torch("from_positions")
def from_positions_reference(
    positions: Tensor, out_features: int, in_features: int, narrow: bool
) -> Tensor:
    """Compute `from_positions` in plain torch, on any device."""
    indices = torch.empty(
        (2, positions.shape[0]), dtype=_index_dtype(narrow), device=positions.device
    )
    if positions.shape[0]:
        population = out_features * in_features
        if positions.min() < 0 or positions.max() >= population:
            raise ValueError(
                f"`positions` must lie in [0, out_features * in_features) = [0, {population})"
            )
        indices[0] = positions.div(in_features, rounding_mode="floor")
        indices[1] = positions.remainder(in_features)
    return indices


def _index_dtype(narrow: bool) -> torch.dtype:
    return torch.int32 if narrow else torch.int64


def empty_positions(occupied: Tensor, ranks: Tensor) -> Tensor:
    """Return the empty positions of the given ranks; rank 0 is the first empty position.

    Args:
        occupied: (n,) int64 positions, increasing.
        ranks: (m,) int64, increasing.

    Returns:
        (m,) int64, increasing, new memory.

    Raises:
        ValueError: shapes or dtypes do not fit. Arguments that do not increase are not refused;
            the result is then meaningless.

    Cost: O(n + m), however full the matrix.
    """
    output: Tensor = operators.empty_positions(occupied, ranks)
    return output


@fake("empty_positions")
def _empty_positions_fake(occupied: Tensor, ranks: Tensor) -> Tensor:
    return torch.empty_like(ranks)


@plain_torch("empty_positions")
def empty_positions_reference(occupied: Tensor, ranks: Tensor) -> Tensor:
    """Compute `empty_positions` in plain torch, on any device."""
    # occupied[i] - i empty positions lie before occupied[i]. The empty position of rank r therefore
    # lies behind every occupied[i] with occupied[i] - i <= r, and before all the others.
    empty_before = occupied - torch.arange(occupied.shape[0], device=occupied.device)
    return ranks + torch.searchsorted(empty_before, ranks, right=True)
