"""Sizes of matrices: which are allowed, and which dtype holds their indices."""

from __future__ import annotations

import torch

from .._arguments import as_int

Shape = tuple[int, int]
"""(out_features, in_features), as the shape of `nn.Linear.weight`."""

_INT32_MAX = torch.iinfo(torch.int32).max
_INT64_MAX = torch.iinfo(torch.int64).max


def index_dtype(shape: Shape, nnz: int) -> torch.dtype:
    """Return the dtype of the indices of a topology: int32 where it holds them, otherwise int64.

    Args:
        shape: (out_features, in_features).
        nnz: number of connections.
    """
    return torch.int32 if max(*shape, nnz) <= _INT32_MAX else torch.int64


def as_shape(shape: Shape) -> Shape:
    """Return the shape of a matrix as two ints, checked as `check_size` does.

    Raises:
        TypeError: `shape` is not a pair, or one of the two is no integer.
        ValueError: a size is negative, or the matrix has too many positions.
    """
    try:
        out_features, in_features = shape
    except (TypeError, ValueError):
        raise TypeError(f"`shape` must be (out_features, in_features), got {shape!r}") from None
    if type(out_features) is not int:  # compiled code knows no other integers
        out_features = as_int(out_features, "out_features")
    if type(in_features) is not int:
        in_features = as_int(in_features, "in_features")
    check_size((out_features, in_features))
    return out_features, in_features


def check_size(shape: Shape) -> None:
    """Raise a ValueError unless a matrix of this shape has fewer than 2**62 positions."""
    out_features, in_features = shape
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
