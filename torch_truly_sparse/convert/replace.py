"""Put layers in the place of others, in a model or in a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch.nn.functional as F
from torch import nn

_NESTED_WHEN_DENSE = "_nested_tensor_when_dense"


def replace_modules(
    model: nn.Module, replacements: Mapping[nn.Module, nn.Module], *, inplace: bool
) -> nn.Module:
    """Put each replacement in every place of the module that it replaces.

    Args:
        model: the model that holds them.
        replacements: new modules by old ones.
        inplace: change the model itself; otherwise a deep copy, which never copies what is
            replaced. Shared modules stay shared.

    Returns:
        The model, the copy, or the replacement of the model itself.
    """
    if model in replacements:
        return replacements[model]
    if not inplace:
        return copy.deepcopy(model, {id(old): new for old, new in replacements.items()})
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child in replacements:
                module._modules[name] = replacements[child]
    return model


def settle_fast_paths(model: nn.Module) -> None:
    """Make torch's fused transformer inference run exactly where all layers are dense.

    In evaluation `nn.TransformerEncoderLayer` hands the weights of its layers to one fused kernel,
    without calling them, and `nn.TransformerEncoder` first packs padded batches into nested
    tensors. Both ask whether they may: the layer whether its activation is one that the kernel
    knows (`activation_relu_or_gelu`, asked for this alone), the encoder `use_nested_tensor`.
    These say no where a layer is no `nn.Linear`, and what torch itself would say where all are.
    Both travel with copies and pickles.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            fused = _has_dense_layers(module)
            module.activation_relu_or_gelu = _fused_activation(module) if fused else 0
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder):
            dense = all(
                _has_dense_layers(layer)
                for layer in module.layers
                if isinstance(layer, nn.TransformerEncoderLayer)
            )
            if not dense and not hasattr(module, _NESTED_WHEN_DENSE):
                setattr(module, _NESTED_WHEN_DENSE, module.use_nested_tensor)
                module.use_nested_tensor = False
            elif dense and hasattr(module, _NESTED_WHEN_DENSE):
                module.use_nested_tensor = getattr(module, _NESTED_WHEN_DENSE)
                delattr(module, _NESTED_WHEN_DENSE)


def _has_dense_layers(layer: nn.TransformerEncoderLayer) -> bool:
    return isinstance(layer.linear1, nn.Linear) and isinstance(layer.linear2, nn.Linear)


def _fused_activation(layer: nn.TransformerEncoderLayer) -> int:
    """Number the activation as `nn.TransformerEncoderLayer` does: 1 ReLU, 2 GELU, 0 another."""
    if layer.activation is F.relu or isinstance(layer.activation, nn.ReLU):
        return 1
    return 2 if layer.activation is F.gelu or isinstance(layer.activation, nn.GELU) else 0
