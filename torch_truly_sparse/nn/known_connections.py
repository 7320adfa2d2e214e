"""Layers of either kind whose connections and weights are known."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from .init import Initializer
from .sparse_layer import SparseLayer

Layer = TypeVar("Layer", bound=SparseLayer)


@torch.no_grad()
def layer_of(
    layer_type: type[Layer],
    indices: Tensor,
    values: Tensor,
    bias: Tensor | None,
    *,
    out_features: int,
    in_features: int,
    init: str | Initializer,
) -> Layer:
    """Make a layer of known connections, on the device and of the dtype of `values`.

    Args:
        layer_type: its class.
        indices: (2, nnz), sorted, unique.
        values: (nnz,), their weights.
        bias: (out_features,), or None for a layer without.
        out_features: number of output units.
        in_features: number of input units.
        init: what `reset_parameters` draws.

    Returns:
        A new layer; everything is copied, and nothing was drawn.

    Raises:
        TypeError, ValueError: they are no topology, or not as many as `values`.
    """
    layer = layer_type(
        in_features,
        out_features,
        bias is not None,
        nnz=values.shape[0],
        init=init,
        device="meta",
        dtype=values.dtype,
    ).to_empty(device=values.device)
    layer.replace_topology(indices.to(values.device))
    layer.scatter_(layer.weight_parameter, values)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)
    return layer


def take_settings(layer: SparseLayer, weight: Tensor, bias: Tensor | None, training: bool) -> None:
    """Make a layer train what another one trains, and be in its mode."""
    layer.weight_parameter.requires_grad_(weight.requires_grad)
    if layer.bias is not None and bias is not None:
        layer.bias.requires_grad_(bias.requires_grad)
    layer.train(training)
