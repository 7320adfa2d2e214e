"""Pictures of what an input layer has chosen to look at."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes

from ..nn import SparseLayer
from .layers import check_layer
from .style import BLUE, axes_or_current


def input_image(layer: SparseLayer, shape: tuple[int, int], axes: Axes | None = None) -> Axes:
    """Draw how many connections each pixel of the input has, as an image.

    An evolution moves connections to the pixels that matter: for digits, to the middle of the
    image. Source: Mocanu et al., "Scalable training of artificial neural networks with adaptive
    sparse connectivity inspired by network science", Nature Communications 2018, figure 4.

    Args:
        layer: the first layer of a network; it takes images flattened row by row.
        shape: (height, width) of an image; height * width is `layer.in_features`, or a divisor of
            it where an image has several channels, whose connections are added up.
        axes: where to draw; None takes the current axes.

    Returns:
        The axes, with a colour bar.

    Raises:
        TypeError: `layer` is no sparse layer, or `shape` no two integers.
        ValueError: images of `shape` do not fill the inputs.

    Cost: O(nnz).
    """
    topology = check_layer(layer).topology
    try:
        height, width = (operator.index(length) for length in shape)
    except (TypeError, ValueError) as error:
        raise TypeError(f"`shape` must be (height, width), two integers, got {shape!r}") from error
    if height < 1 or width < 1 or topology.in_features % (height * width):
        raise ValueError(
            f"`shape` must fill the {topology.in_features} inputs of the layer, got {height} x "
            f"{width} = {height * width}"
        )
    counts = topology.fan_out().reshape(-1, height, width).sum(0)
    axes = axes_or_current(axes)
    image = axes.imshow(counts.numpy(), cmap="viridis", vmin=0, interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, label="connections", shrink=0.8)
    axes.set(xticks=[], yticks=[], title="Connections of each input")
    return axes


def ranking(
    source: Any, names: Sequence[Any] | None = None, top: int = 20, axes: Axes | None = None
) -> Axes:
    """Draw the features that matter most as bars, the first one on top.

    Args:
        source: what `rank_features` returned; or a sparse layer, whose inputs are ranked by the sum
            of the absolute weights of their connections (for standardised inputs: Atashgahi et al.,
            "Quick and robust feature selection", Machine Learning 2022).
        names: of the inputs of a layer, one for each; None numbers them. A ranking has its own.
        top: how many to draw.
        axes: where to draw; None takes the current axes.

    Returns:
        The axes.

    Raises:
        TypeError: `source` is neither, or `names` are given for a ranking.
        ValueError: `names` do not fit the inputs, or `top` is below 1.

    Cost: O(nnz + in_features log in_features).
    """
    if operator.index(top) < 1:
        raise ValueError(f"`top` must be at least 1, got {top}")
    if isinstance(source, SparseLayer):
        best, lengths = _strongest_inputs(source, names, top)
        label = "sum of absolute weights"
    elif hasattr(source, "importance") and hasattr(source, "names"):
        if names is not None:
            raise TypeError("`names` are for a layer: this ranking has names of its own")
        best = [str(name) for name in source.names[:top]]
        lengths = [float(value) for value in source.importance[:top]]
        label = "importance (all features: 1)"
    else:
        raise TypeError(
            "`source` must be a FeatureRanking, which `rank_features` returns, or a sparse layer, "
            f"got {type(source).__name__}"
        )
    axes = axes_or_current(axes)
    axes.barh(range(len(best)), lengths, color=BLUE)
    axes.set_yticks(range(len(best)), best)
    axes.invert_yaxis()
    axes.set(xlabel=label, title=f"The first {len(best)} features")
    return axes


def _strongest_inputs(
    layer: SparseLayer, names: Sequence[Any] | None, top: int
) -> tuple[list[str], list[float]]:
    inputs = layer.topology.in_features
    if names is not None and len(names) != inputs:
        raise ValueError(f"`names` must name the {inputs} inputs of the layer, got {len(names)}")
    weights = layer.gather(layer.weight_parameter.detach()).abs().double()
    columns = layer.topology.indices[1].long()
    strengths = torch.zeros(inputs, dtype=torch.float64).index_add_(0, columns, weights)
    values, order = strengths.sort(descending=True, stable=True)
    chosen = order[:top].tolist()
    best = [str(column if names is None else names[column]) for column in chosen]
    return best, values[:top].tolist()
