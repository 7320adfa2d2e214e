"""Sizes of matrices: which are allowed, and which dtype holds their indices."""

from __future__ import annotations

import torch

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
