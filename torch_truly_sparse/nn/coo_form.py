"""The weights as torch's own sparse tensor, in which gradients flow back to the values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def coo_tensor(indices: Tensor, values: Tensor, out_features: int, in_features: int) -> Tensor:
    """Make a coalesced torch.sparse_coo_tensor (out_features, in_features).

    Args:
        indices: (2, nnz), checked: torch reads them as they are.
        values: (nnz,). A backward pass after they were changed in place raises torch's error.
        out_features: number of output units.
        in_features: number of input units.

    Returns:
        A copy: the indices widened to int64, 20 bytes a weight.
    """
    followed: Tensor = _InThisTopology.apply(values)  # type: ignore[no-untyped-call]
    return torch.sparse_coo_tensor(
        indices.to(torch.int64, copy=True),
        followed,
        (out_features, in_features),
        device=values.device,
        is_coalesced=True,
        check_invariants=False,
    )


class _InThisTopology(torch.autograd.Function):
    """A copy of the values; a backward pass after they changed raises torch's own error.

    Evolution would otherwise let the gradient reach the wrong connections in silence.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        _ = ctx.saved_tensors  # checks that they have not changed in place
        return gradient
