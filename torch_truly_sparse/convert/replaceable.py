"""Which layers can be replaced without losing anything, and why others cannot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod

from .._module_names import ModuleNames
from .._wrappers import check_not_data_parallel

_Kind = TypeVar("_Kind", bound=nn.Module)

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Parts(NamedTuple):
    """What a dense layer computes with, the masks of `torch.nn.utils.prune` applied."""

    weight: Tensor  # (out_features, in_features)
    mask: Tensor | None  # of the same shape, where the weight is pruned
    bias: Tensor | None
    trainable: bool  # whether the weight requires gradients
    trainable_bias: bool


def parts_of(linear: nn.Linear, *, read: bool = True) -> Parts:
    """Take a dense layer apart; it is not changed, and what is not pruned is not copied.

    Args:
        linear: a plain layer, pruned or not.
        read: whether the weights matter; if not, masks are not applied to them.
    """
    weight, mask = _held(linear, "weight")
    bias, bias_mask = _held(linear, "bias")
    assert weight is not None
    return Parts(
        _masked(weight, mask if read else None),
        mask,
        None if bias is None else _masked(bias, bias_mask),
        weight.requires_grad,
        bias is not None and bias.requires_grad,
    )


def _held(linear: nn.Linear, name: str) -> tuple[nn.Parameter | None, Tensor | None]:
    """Give a parameter and its mask, under the names that `torch.nn.utils.prune` moves them to."""
    original = linear._parameters.get(f"{name}_orig")
    if original is None:
        return linear._parameters.get(name), None
    return original, linear._buffers[f"{name}_mask"]


def _masked(parameter: Tensor, mask: Tensor | None) -> Tensor:
    return parameter.detach() if mask is None else parameter.detach() * mask.to(parameter.dtype)


def names_of(model: nn.Module) -> ModuleNames:
    """Name the modules of a model that is to be converted.

    Raises:
        TypeError: it is no module, or it is wrapped for data parallelism.
    """
    names = ModuleNames(model)
    check_not_data_parallel(
        model,
        "the wrapper holds on to the parameters that it was given, so convert the model first and "
        "wrap it then",
    )
    return names


def find_replaceable(names: ModuleNames, kind: type[_Kind], exclude: Iterable[str]) -> list[_Kind]:
    """Find the layers of a kind that no glob of `exclude` matches.

    Raises:
        TypeError: `exclude` is no list of globs.
        ValueError: a glob matches no layer of the kind, or no layer is left.
    """
    there = [module for module in names if isinstance(module, kind)]
    layers = names.without(there, exclude)
    if not layers:
        raise ValueError(
            f"`model` has no {kind.__name__} to replace"
            + (", because `exclude` matches all of them" if there else "")
        )
    return layers


def check_replaceable(names: ModuleNames, layers: Iterable[nn.Module], kind: type) -> None:
    """Raise unless each layer is a plain one of `kind`, shared with nothing else.

    Raises:
        ValueError: one line for each layer that is not, with the reason.
    """
    layers = list(layers)
    sharers = _sharers(names)
    refusals = []
    for layer in layers:
        reason = _own_behaviour(layer, kind) or _tied(layer, sharers, names)
        if reason:
            refusals.append(f"  {names.of(layer) or '(the model itself)'}: {reason}")
    if refusals:
        raise ValueError(
            "these layers cannot be replaced without losing something; put their names into "
            "`exclude`, or change them first:\n" + "\n".join(refusals)
        )


def _own_behaviour(layer: nn.Module, kind: type) -> str | None:
    """Say what a layer has beyond a plain one, or None."""
    if isinstance(layer, nn.LazyLinear):
        return "its size is not known yet; run a batch through the model first"
    if is_parametrized(layer):
        return (
            "its weight is parametrized; torch.nn.utils.parametrize.remove_parametrizations makes "
            "it a plain one"
        )
    if type(layer) is NonDynamicallyQuantizableLinear:
        return (
            "it is the output projection of an nn.MultiheadAttention, which reads its weight "
            "without calling it"
        )
    if type(layer) is not kind:
        return f"it is a {type(layer).__name__}, whose own behaviour would be lost"
    if "forward" in layer.__dict__:
        return "its `forward` has been replaced, which would be lost"
    pruned = {
        hook._tensor_name
        for hook in layer._forward_pre_hooks.values()
        if isinstance(hook, BasePruningMethod)
    }
    for hooks in _HOOKS:
        for hook in getattr(layer, hooks).values():
            if not isinstance(hook, BasePruningMethod):
                return (
                    f"it has a hook ({hooks.strip('_')}: {getattr(hook, '__name__', hook)}); "
                    "remove it, and register it on the new layer"
                )
    sparse = kind is not nn.Linear
    expected = {"values", "indices", "seal", "bias"} if sparse else {"weight", "bias"}
    for name in pruned:
        expected |= {f"{name}_orig", f"{name}_mask"}
    for name in (*layer._parameters, *layer._buffers, *layer._modules):
        if name not in expected:
            return f"it holds {name!r} beside its weight and bias, which would be lost"
    for name, parameter in layer._parameters.items():
        if parameter is not None and (
            parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None)
        ):
            return f"its {name!r} has a gradient hook; register it on the new layer's parameter"
    return _unsupported(layer)


def _unsupported(layer: nn.Module) -> str | None:
    for name, parameter in layer._parameters.items():
        if parameter is None:
            continue
        if parameter.dtype not in (torch.float32, torch.float64):
            return (
                f"its {name!r} is {parameter.dtype}; sparse weights are float32 or float64 (inputs "
                "may be bfloat16 or float16): convert with `.float()` first"
            )
        if parameter.layout != torch.strided:
            return f"its {name!r} has the layout {parameter.layout}"
    return None


def _sharers(names: ModuleNames) -> dict[int, list[tuple[nn.Module, str]]]:
    """List the places of every parameter, each module once."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in names:
        for name, parameter in module._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((module, name))
    return places


def _tied(
    layer: nn.Module, sharers: dict[int, list[tuple[nn.Module, str]]], names: ModuleNames
) -> str | None:
    for name, parameter in layer._parameters.items():
        for other, other_name in sharers[id(parameter)] if parameter is not None else ():
            if other is not layer:
                shared = f"{names.of(other)}.{other_name}".strip(".")
                return f"its {name!r} is tied to {shared!r}, and would no longer be"
    return None
