"""Conversion: layers of dense weights or known connections, and dense layers of sparse ones."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .._arguments import as_fraction
from ..topology import Topology, connections_at
from .init import Initializer
from .sparse_layer import SparseLayer

Layer = TypeVar("Layer", bound=SparseLayer)


@torch.no_grad()
def layer_of(
    layer_type: type[Layer],
    topology: Topology,
    values: Tensor,
    bias: Tensor | None,
    *,
    init: str | Initializer,
) -> Layer:
    """Make a layer of known connections, on the device and of the dtype of `values`.

    Args:
        layer_type: class of the layer.
        topology: connections of the layer.
        values: (nnz,), weights of the connections.
        bias: (out_features,), or None for a layer without a bias.
        init: the initializer of later calls of `reset_parameters`.

    Returns:
        A new layer; everything is copied, and no random number is drawn.

    Raises:
        TypeError, ValueError: there are not as many `values` as connections.
    """
    layer = layer_type(
        topology.in_features,
        topology.out_features,
        bias is not None,
        nnz=values.shape[0],
        init=init,
        device="meta",
        dtype=values.dtype,
    ).to_empty(device=values.device)
    layer.replace_topology(topology)
    layer.topology_learnt = False
    layer.scatter_(layer.weight_parameter, values)
    if layer.bias is not None and bias is not None:
        layer.bias.copy_(bias)
    return layer


def take_settings(layer: SparseLayer, weight: Tensor, bias: Tensor | None, training: bool) -> None:
    """Set `requires_grad` of a layer like that of `weight` and `bias`, and its training mode."""
    layer.weight_parameter.requires_grad_(weight.requires_grad)
    if layer.bias is not None and bias is not None:
        layer.bias.requires_grad_(bias.requires_grad)
    layer.train(training)


def topology_to_keep(weight: Tensor, density: float | None, mask: Tensor | None) -> Topology:
    """Return the topology of a dense layer's largest weights, or of its weights under a mask.

    Args:
        weight: (out_features, in_features).
        density: keep the round(density * out * in) largest by magnitude, or
        mask: bool, of the shape of `weight`, keep these. Exactly one of the two.

    Returns:
        The topology of the weights to keep, on the device of `weight`.

    Raises:
        TypeError, ValueError: as `TrulySparseLinear.from_dense` says.
    """
    if (density is None) == (mask is None):
        raise TypeError("exactly one of `density` and `mask` must be given")
    if mask is not None:
        return Topology.from_mask(_checked_mask(mask, weight)).to(weight.device)
    count = connections_at(as_fraction(density, "density"), weight.numel())
    positions = weight.abs().flatten().topk(count, sorted=False).indices.sort().values
    out_features, in_features = weight.shape
    return Topology.from_positions(positions, (out_features, in_features))


def weights_at(weight: Tensor, topology: Topology) -> Tensor:
    """Return the entries of a dense weight at the connections of a topology: (nnz,), a copy."""
    rows, columns = topology.indices.to(weight.device).long()
    return weight[rows, columns]


def _checked_mask(mask: Tensor, weight: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"`mask` must be a bool tensor, got {got}")
    if mask.shape != weight.shape:
        raise ValueError(
            f"`mask` must have the shape of the weight {tuple(weight.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return mask


@torch.no_grad()
def dense_linear(topology: Topology, values: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make an `nn.Linear` with zeros where there is no connection; everything is copied.

    The layer also takes over `requires_grad` of `values` and `bias`.

    Args:
        topology: the connections; the caller has checked them.
        values: (nnz,).
        bias: (out_features,), or None.
    """
    dense = nn.utils.skip_init(
        nn.Linear,
        topology.in_features,
        topology.out_features,
        bias is not None,
        device=values.device,
        dtype=values.dtype,
    )
    dense.weight.zero_()
    rows, columns = topology.indices.long()
    dense.weight[rows, columns] = values
    dense.weight.requires_grad_(values.requires_grad)
    if bias is not None:
        dense.bias.copy_(bias)
        dense.bias.requires_grad_(bias.requires_grad)
    return cast(nn.Linear, dense)


def coo_tensor(topology: Topology, values: Tensor) -> Tensor:
    """Make a coalesced torch.sparse_coo_tensor, through which gradients flow back to `values`.

    Args:
        topology: the connections; the caller has checked them, for torch does not.
        values: (nnz,). A backward pass after `values` was changed in place raises torch's error.

    Returns:
        (out_features, in_features), a copy: the indices widened to int64, 20 bytes a weight.
    """
    followed: Tensor = _InThisTopology.apply(values)  # type: ignore[no-untyped-call]
    return torch.sparse_coo_tensor(
        topology.indices.to(torch.int64, copy=True),
        followed,
        topology.shape,
        device=values.device,
        is_coalesced=True,
        check_invariants=False,
    )


class _InThisTopology(torch.autograd.Function):
    """A copy of the values; a backward pass after they changed raises torch's own error.

    Without this error, the gradient after an evolution would reach the wrong connections.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        _ = ctx.saved_tensors  # checks that they have not changed in place
        return gradient
