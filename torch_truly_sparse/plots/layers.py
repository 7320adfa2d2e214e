"""Pictures of layers as they are now."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from torch import nn

from .._arguments import check_module
from ..convert import summary
from ..nn import SparseLayer
from .style import BLUE, GREY, ORANGE, axes_or_current


def degrees(layer: SparseLayer, axes: Axes | None = None) -> Axes:
    """Draw how many connections the units of a layer have.

    Args:
        layer: a `TrulySparseLinear` or `MaskedLinear`.
        axes: where to draw; None takes the current axes.

    Returns:
        The axes: for the outputs (blue) and the inputs (orange), the share of the units that have
        each number of connections.

    Raises:
        TypeError: `layer` is no sparse layer.

    Cost: O(nnz).
    """
    topology = check_layer(layer).topology
    axes = axes_or_current(axes)
    for name, units, colour in (
        ("outputs (fan-in)", topology.fan_in(), BLUE),
        ("inputs (fan-out)", topology.fan_out(), ORANGE),
    ):
        shares = torch.bincount(units).double() / max(len(units), 1)
        axes.stairs(
            shares.numpy(), torch.arange(-0.5, len(shares)).numpy(), fill=True, alpha=0.5,
            color=colour, label=f"{name}, mean {topology.nnz / max(len(units), 1):.1f}",
        )  # fmt: skip
    axes.set(xlabel="connections of a unit", ylabel="share of the units", title="Degrees")
    axes.legend(frameon=False)
    return axes


def densities(model: nn.Module, axes: Axes | None = None) -> Axes:
    """Draw the density of each linear layer of a model as a bar, its weights beside it.

    Args:
        model: any module; its truly sparse, packed and dense linear layers are drawn.
        axes: where to draw; None takes the current axes.

    Returns:
        The axes: a bar for each layer from top to bottom, dense ones in grey.

    Raises:
        TypeError: `model` is no module.
        ValueError: `model` has no linear layer.
    """
    check_module(model, "model")
    rows = summary(model).rows
    if not rows:
        raise ValueError("`model` has no linear layer to draw")
    axes = axes_or_current(axes)
    places = range(len(rows))
    bars = axes.barh(
        places,
        [100 * row.density for row in rows],
        color=[GREY if row.kind == "dense" else BLUE for row in rows],
    )
    labels = [f"{row.nnz:,} of {row.shape[0] * row.shape[1]:,}" for row in rows]
    axes.bar_label(bars, labels, padding=4, color="#444444")
    axes.set_yticks(places, [row.name or "(model)" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * max(100 * row.density for row in rows) or 1)
    axes.set(xlabel="density in percent", title="Weights of the layers")
    return axes


def check_layer(layer: SparseLayer) -> SparseLayer:
    """Return the layer, which must be a sparse one."""
    if not isinstance(layer, SparseLayer):
        raise TypeError(
            "`layer` must be a TrulySparseLinear or a MaskedLinear, got "
            f"{type(layer).__name__}; draw one layer of a model: `model[0]`"
        )
    return layer
