"""Models packed for inference, and back."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .._arguments import check_module
from ..nn import PackedLinear, TrulySparseLinear
from ..nn.packed_linear import check_packed_dtype
from .replace import replace_modules, settle_fast_paths
from .replaceable import check_replaceable, find_replaceable, names_of


@torch.no_grad()
def pack(
    model: nn.Module, dtype: torch.dtype = torch.float32, *, exclude: Iterable[str] = ()
) -> nn.Module:
    """Return a compact copy of a model, for inference.

    Every `TrulySparseLinear` becomes a `nn.PackedLinear`: 16 bits for the column of a weight, and
    its value in `dtype`. All else is copied. The copy is in evaluation mode and none of its
    parameters requires a gradient.

    Args:
        model: any module.
        dtype: of the packed weights: torch.float32 (6 bytes a weight, the same numbers),
            torch.bfloat16 (4 bytes) or torch.int8 (3 bytes). `nn.PackedLinear.from_sparse` gives
            the bounds of the error.
        exclude: globs of module names to leave alone, as for `sparsify`.

    Returns:
        The copy. It takes batches of any size, and goes through `torch.compile`, `torch.export`,
        `state_dict`, safetensors and pickle.

    Raises:
        TypeError: an argument has the wrong type, or a layer has float64 weights.
        ValueError: a glob matches no layer, no layer is left, or a layer cannot be replaced
            without losing something (a subclass, hooks, tied values).

    Cost: O(nnz) time; the memory of the copy.

    Example:
        >>> model = nn.Sequential(TrulySparseLinear(1000, 1000, density=0.1), nn.ReLU())
        >>> packed = pack(model, torch.bfloat16)
        >>> round(packed[0].nbytes / packed[0].nnz, 1)
        4.1
    """
    check_packed_dtype(dtype)
    names = names_of(model)
    layers = find_replaceable(names, TrulySparseLinear, exclude)
    check_replaceable(names, layers, TrulySparseLinear)
    packed: dict[nn.Module, nn.Module] = {}
    for layer in layers:
        try:
            packed[layer] = PackedLinear.from_sparse(layer, dtype)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{names.of(layer)!r}: {error}") from None
    copied = replace_modules(model, packed, inplace=False)
    settle_fast_paths(copied)
    return copied.eval().requires_grad_(False)


@torch.no_grad()
def unpack(model: nn.Module) -> nn.Module:
    """Return a copy of a packed model with trainable sparse layers of its weights, in float32.

    The weights are those that were packed: in bfloat16 and int8 they stay rounded.

    Args:
        model: what `pack` returned, or a module that holds a `nn.PackedLinear`.

    Returns:
        The copy, in the training mode of the model; the parameters of the sparse layers require
        gradients, all else is as in the model.

    Raises:
        TypeError: `model` is no module.
        ValueError: it holds no packed layer, or a layer's buffers were changed and are no packed
            matrix.

    Cost: O(nnz) time; the memory of the copy.

    Example:
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1))
        >>> torch.equal(unpack(pack(model))[0].values, model[0].values)
        True
    """
    check_module(model, "model")
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    if not layers:
        raise ValueError("`model` holds no nn.PackedLinear; `tts.pack` makes them")
    return replace_modules(model, {layer: layer.to_sparse() for layer in layers}, inplace=False)
