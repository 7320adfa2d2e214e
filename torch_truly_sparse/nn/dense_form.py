"""Weights on their way from a dense layer to a sparse one, and back."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .._arguments import as_fraction
from ..topology import connections_at


def positions_to_keep(weight: Tensor, density: float | None, mask: Tensor | None) -> Tensor:
    """Choose weights of a dense layer: the largest by magnitude, or those under a mask.

    Args:
        weight: (out_features, in_features).
        density: keep the round(density * out * in) largest by magnitude, or
        mask: bool, of the shape of `weight`, keep these. Exactly one of the two.

    Returns:
        (number kept,) int64 linear positions, sorted.

    Raises:
        TypeError, ValueError: as `TrulySparseLinear.from_dense` says.
    """
    if (density is None) == (mask is None):
        raise TypeError("exactly one of `density` and `mask` must be given")
    if mask is not None:
        return _positions_of_mask(mask, weight)
    count = connections_at(as_fraction(density, "density"), weight.numel())
    return weight.abs().flatten().topk(count, sorted=False).indices.sort().values


def _positions_of_mask(mask: Tensor, weight: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"`mask` must be a bool tensor, got {got}")
    if mask.shape != weight.shape:
        raise ValueError(
            f"`mask` must have the shape of the weight {tuple(weight.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return mask.flatten().nonzero().squeeze(1).to(weight.device)


@torch.no_grad()
def dense_linear(
    indices: Tensor, values: Tensor, bias: Tensor | None, out_features: int, in_features: int
) -> nn.Linear:
    """Make an `nn.Linear` with zeros where there is no connection; everything is copied.

    `requires_grad` of `values` and `bias` goes along.

    Args:
        indices: (2, nnz), checked.
        values: (nnz,).
        bias: (out_features,), or None.
        out_features: number of output units.
        in_features: number of input units.
    """
    dense = nn.utils.skip_init(
        nn.Linear,
        in_features,
        out_features,
        bias is not None,
        device=values.device,
        dtype=values.dtype,
    )
    dense.weight.zero_()
    dense.weight[indices[0].long(), indices[1].long()] = values
    dense.weight.requires_grad_(values.requires_grad)
    if bias is not None:
        dense.bias.copy_(bias)
        dense.bias.requires_grad_(bias.requires_grad)
    return cast(nn.Linear, dense)
