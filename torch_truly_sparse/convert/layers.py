"""One truly sparse layer in the place of one dense layer."""

from __future__ import annotations

import torch
from torch import nn

from ..nn import TrulySparseLinear
from ..nn.conversion import weights_at
from ..topology import Distribution, Topology
from .replaceable import Parts, parts_of


def draw(
    linear: nn.Linear, nnz: int, shares: Distribution, generator: torch.Generator | None
) -> TrulySparseLinear:
    """Give a dense layer a new topology and new weights; its bias stays.

    Args:
        linear: the dense layer, of which only the bias is read; on `meta` the bias becomes 0.
        nnz: number of connections.
        shares: says how a topology is drawn.
        generator: source of randomness, or None for torch's default generator.

    Returns:
        A new layer on the device of the dense one; on the CPU if that is `meta`.

    Cost: O(nnz + in_features + out_features).
    """
    parts = parts_of(linear, read=False)
    device = torch.device("cpu") if parts.weight.is_meta else parts.weight.device
    layer = TrulySparseLinear(
        linear.in_features,
        linear.out_features,
        parts.bias is not None,
        nnz=nnz,
        device="meta",
        dtype=parts.weight.dtype,
    ).to_empty(device=device)
    shape = (linear.out_features, linear.in_features)
    layer.replace_topology(shares.draw(shape, nnz, generator=generator))
    layer.topology_learnt = False
    layer.reset_weights(generator=generator)
    if layer.bias is not None and parts.bias is not None and not parts.bias.is_meta:
        layer.bias.copy_(parts.bias)
    return _like(layer, linear, parts)


def keep_largest(linear: nn.Linear, nnz: int, shares: Distribution) -> TrulySparseLinear:
    """Keep the `nnz` largest weights of a dense layer, as the distribution chooses them."""
    parts = parts_of(linear)
    layer = _of_topology(linear, parts, shares.largest(parts.weight, nnz))
    layer.topology_learnt = True
    return layer


def keep_nonzero(linear: nn.Linear) -> TrulySparseLinear | None:
    """Keep the weights that are not masked, or without a mask not 0; None if that is all."""
    parts = parts_of(linear)
    there = (parts.weight if parts.mask is None else parts.mask) != 0
    topology = Topology.from_mask(there)
    if topology.nnz == there.numel():
        return None
    return _of_topology(linear, parts, topology)


def _of_topology(linear: nn.Linear, parts: Parts, topology: Topology) -> TrulySparseLinear:
    weights = weights_at(parts.weight, topology)
    layer = TrulySparseLinear.from_topology(topology, weights, parts.bias)
    return _like(layer, linear, parts)


def _like(layer: TrulySparseLinear, linear: nn.Linear, parts: Parts) -> TrulySparseLinear:
    layer.values.requires_grad_(parts.trainable)
    if layer.bias is not None:
        layer.bias.requires_grad_(parts.trainable_bias)
    layer.train(linear.training)
    return layer
