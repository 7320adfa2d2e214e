"""Writes what becomes of sparse layers to TensorBoard, or wherever numbers go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ..evolution import EvolutionRecord, LayerChange
from ..evolution.sparse_evolution import SparseEvolution
from ..nn import SparseLayer

__all__ = ["SparsityLogger"]

Write = Callable[[str, float, int], object]


class SparsityLogger:
    """Writes density, turnover, degrees and gradient norms of each layer after each evolution.

    Under `sparsity/LAYER/`:

    - `density`: connections by possible ones;
    - `turnover`: connections that were replaced, by all; `returned`: of the replaced ones, those
      that came back at once;
    - `fan_in_max`, `fan_out_max`, `isolated_inputs`, `isolated_outputs`: the largest degrees, and
      units without a connection;
    - `gradient_norm`: of the weights, where there is a gradient;
    - `fan_in`, `fan_out`: histograms of the degrees, where the writer has `add_histogram`.

    Args:
        writer: a `torch.utils.tensorboard.SummaryWriter`, or anything with its `add_scalar`; or a
            function `write(name, value, step)`, where `step` counts optimizer steps.

    Raises:
        TypeError: `writer` is neither.

    Cost of an evolution: O(nnz + in_features + out_features) for each layer.

    Example:
        >>> import torch
        >>> import torch_truly_sparse as tts
        >>> layer = tts.TrulySparseLinear(20, 30, density=0.1)
        >>> evolution = tts.SET(layer, torch.optim.SGD(layer.parameters(), lr=0.1), every=None)
        >>> lines = {}
        >>> logger = SparsityLogger(lambda name, value, step: lines.update({name: value}))
        >>> handle = logger.attach(evolution)
        >>> _ = evolution.step()
        >>> lines["sparsity/layer/turnover"]
        0.3
    """

    def __init__(self, writer: Any) -> None:
        self._histogram: Callable[..., object] | None = None
        if callable(getattr(writer, "add_scalar", None)):
            self._write: Write = writer.add_scalar
            if callable(getattr(writer, "add_histogram", None)):
                self._histogram = writer.add_histogram
        elif callable(writer):
            self._write = writer
        else:
            raise TypeError(
                "`writer` must have `add_scalar`, as a SummaryWriter has, or be a function "
                f"`write(name, value, step)`, got {type(writer).__name__}"
            )

    def attach(self, evolution: SparseEvolution) -> RemovableHandle:
        """Write after each evolution from now on, until the handle's `remove()` is called."""

        def write(record: EvolutionRecord, changes: Mapping[str, LayerChange]) -> None:
            layers = evolution.named_layers
            for name, change in changes.items():
                self._write_layer(name or "layer", layers[name], change, record.step)

        return evolution.register_hook(write)

    def _write_layer(self, name: str, layer: SparseLayer, change: LayerChange, step: int) -> None:
        topology = layer.topology
        fan_in, fan_out = topology.fan_in(), topology.fan_out()
        replaced = change.grown.shape[0]
        figures = {
            "density": topology.density,
            "turnover": replaced / max(topology.nnz, 1),
            "returned": change.returned / max(replaced, 1),
            "fan_in_max": _largest(fan_in),
            "fan_out_max": _largest(fan_out),
            "isolated_inputs": float((fan_out == 0).sum()),
            "isolated_outputs": float((fan_in == 0).sum()),
        }
        gradient = layer.weight_parameter.grad
        if gradient is not None:
            figures["gradient_norm"] = float(layer.gather(gradient).norm())
        for key, value in figures.items():
            self._write(f"sparsity/{name}/{key}", value, step)
        if self._histogram is not None:
            self._histogram(f"sparsity/{name}/fan_in", fan_in, step)
            self._histogram(f"sparsity/{name}/fan_out", fan_out, step)


def _largest(degrees: Tensor) -> float:
    return float(degrees.max()) if degrees.numel() else 0.0
