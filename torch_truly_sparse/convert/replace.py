"""Put layers in the place of others, in a model or in a copy of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from torch import nn

from .._wrappers import is_compiled
from ..nn import PackedLinear, SparseLayer


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

    Raises:
        ValueError: the model cannot be copied, or not be changed in place; it is as it was.
    """
    if model in replacements:
        return replacements[model]
    if not inplace:
        try:
            return copy.deepcopy(model, {id(old): new for old, new in replacements.items()})
        except Exception as error:
            raise ValueError(
                f"`model` cannot be copied ({error}); `inplace=True` changes the model itself"
            ) from error
    for module in model.modules():
        if is_compiled(module) and module.get_submodule("_orig_mod") in replacements:
            raise ValueError(
                "`inplace=True` cannot reach a layer that `torch.compile` wraps by itself, for the "
                "compiled code would go on with the old one: convert first, then compile"
            )
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and child in replacements:
                module._modules[name] = replacements[child]
    return model


def settle_fast_paths(model: nn.Module) -> None:
    """Keep torch's fused transformer inference away from sparse layers, and from them alone.

    In evaluation `nn.TransformerEncoderLayer` hands the weights of its layers to one fused kernel,
    without calling them, and `nn.TransformerEncoder` first packs padded batches into nested
    tensors. Both ask whether they may: the layer whether its activation is one that the kernel
    knows (`activation_relu_or_gelu`, asked for this alone), the encoder `use_nested_tensor`. Where
    a layer is sparse these say no; where it is dense again they say what they said before. Copies
    and pickles carry the answer along.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            _settle(module, "activation_relu_or_gelu", 0, sparse=_is_sparse(module))
        elif isinstance(module, nn.TransformerEncoder):
            sparse = any(_is_sparse(layer) for layer in module.layers)
            _settle(module, "use_nested_tensor", False, sparse=sparse)


def _settle(module: nn.Module, answer: str, no: int | bool, *, sparse: bool) -> None:
    before = f"_{answer}_when_dense"
    if sparse and not hasattr(module, before):
        setattr(module, before, getattr(module, answer))
        setattr(module, answer, no)
    elif not sparse and hasattr(module, before):
        setattr(module, answer, getattr(module, before))
        delattr(module, before)


def _is_sparse(layer: nn.Module) -> bool:
    kinds = (SparseLayer, PackedLinear)
    return isinstance(layer, nn.TransformerEncoderLayer) and (
        isinstance(layer.linear1, kinds) or isinstance(layer.linear2, kinds)
    )
