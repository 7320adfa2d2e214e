"""Replace the truly sparse layers of a model by dense ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ..nn import TrulySparseLinear
from .pretrained import unguard_saving
from .replace import replace_modules, settle_fast_paths
from .replaceable import check_replaceable, find_replaceable, names_of


@torch.no_grad()
def densify(model: nn.Module, *, exclude: Iterable[str] = (), inplace: bool = False) -> nn.Module:
    """Replace every `TrulySparseLinear` of a model by an `nn.Linear` of the same weights.

    The inverse of `sparsify`: zeros stand where there is no connection. Dtype, device,
    `requires_grad` and training mode are kept, and torch's fused transformer inference may run
    again.

    Args:
        model: any module.
        exclude: globs of module names to leave alone, as for `sparsify`.
        inplace: change the model itself; otherwise a copy is returned.

    Returns:
        The converted model. Make its optimizer afterwards: the parameters are new ones.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a glob matches no layer, no layer is left, or a layer cannot be replaced
            without losing something (a subclass, hooks, tied values). Nothing is then changed.

    Cost: O(out_features * in_features) time and memory for each layer.

    Example:
        >>> layer = TrulySparseLinear(20, 30, density=0.1)
        >>> model = densify(nn.Sequential(layer))
        >>> torch.equal(model[0].weight, layer.weight.to_dense())
        True
    """
    names = names_of(model)
    layers = find_replaceable(names, TrulySparseLinear, exclude)
    check_replaceable(names, layers, TrulySparseLinear)
    for layer in layers:
        if layer.values.is_meta:
            raise ValueError(
                f"{names.of(layer)!r} is on the meta device and has no weights to convert; give "
                "it content first (`to_empty`, then `reset_topology`)"
            )
    converted = replace_modules(
        model, {layer: layer.to_dense() for layer in layers}, inplace=inplace
    )
    settle_fast_paths(converted)
    if not any(isinstance(module, TrulySparseLinear) for module in converted.modules()):
        unguard_saving(converted)
    return converted
