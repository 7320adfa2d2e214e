"""Saved states: checked before anything is loaded, and loaded entirely or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from .._arguments import check_tensor
from .._torch_internals import has_content
from ..topology import Topology, check_seal, is_seal
from .sparse_layer import SparseLayer
from .storage import in_full_precision

FOREIGN = (
    ": the state is of another model, or was changed since it was saved (by an average over all "
    "entries, or a cast)"
)


class StateDictError(ValueError, RuntimeError):
    """A saved state that does not fit; nothing of it was loaded.

    It is a `ValueError`, like the error of a single layer, and a `RuntimeError`, like torch's own
    error of `load_state_dict`.
    """


def check_state_dict(
    model: nn.Module, state_dict: Mapping[str, Any], *, assign: bool = False, strict: bool = False
) -> None:
    """Check every topology and every shape of a saved state, before anything is loaded.

    `nn.Module.load_state_dict` loads module after module: when it refuses the tenth module, the
    first nine have been loaded already. The shapes of a module with a
    `_load_from_state_dict` or hooks of its own are not compared, because such a module may convert
    what it loads.

    Args:
        model: the model into which the state is to be loaded.
        state_dict: the saved state.
        assign: whether the state is to be loaded with `assign=True`.
        strict: whether a key that is missing or too many is an error, as `load_state_dict` has it.

    Raises:
        StateDictError: some entry does not fit; the text lists every such entry.

    Cost: O(nnz + out_features) for each sparse layer.
    """
    _check(model, state_dict, "", assign, strict)


def load_all_or_nothing(model: nn.Module) -> RemovableHandle:
    """Make `model.load_state_dict` call `check_state_dict` first, from now on.

    `sparsify` does so for every model that it returns; a second call changes nothing. The check is
    a hook of the model (`register_load_state_dict_pre_hook`): copies and pickles of the model have
    the hook, too, and it also runs when the model is loaded as part of a larger one.

    Args:
        model: the model that is to check saved states.

    Returns:
        A handle whose `remove()` removes the check.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(*(TrulySparseLinear(9, 9, nnz=20) for _ in range(2)))
        >>> handle = load_all_or_nothing(model)
        >>> state = model.state_dict()
        >>> state["1.indices"] = state["1.indices"] + 9
        >>> model.load_state_dict(state)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        torch_truly_sparse.nn.saved_state.StateDictError: the state does not fit, and ...
        layer '1': ...
    """
    hooks = model._load_state_dict_pre_hooks
    for key in [key for key, hook in hooks.items() if _is_this_check(hook)]:
        del hooks[key]
    handle: RemovableHandle = model.register_load_state_dict_pre_hook(_check_first)
    return handle


def _check_first(
    module: nn.Module,
    state_dict: Mapping[str, Any],
    prefix: str,
    local_metadata: Mapping[str, Any],
    strict: bool,
    *_: Any,
) -> None:
    assign = local_metadata.get("assign_to_params_buffers", False)
    _check(module, state_dict, prefix, assign, strict)


def _check(
    model: nn.Module, state_dict: Mapping[str, Any], prefix: str, assign: bool, strict: bool
) -> None:
    offences = _misfit_keys(model, state_dict, prefix) if strict else []
    for name, module in model.named_modules(prefix=prefix[:-1], remove_duplicate=False):
        key = f"{name}." if name else ""
        if isinstance(module, SparseLayer):
            try:
                module.check_state(state_dict, key, assign=assign)
            except (TypeError, ValueError) as error:
                offences.append(f"layer {name!r}: {error}")
        elif _loads_as_it_is(module, is_root=module is model):
            offences += _shapes_that_differ(module, state_dict, key, assign)
    if offences:
        text = "the state does not fit, and nothing of it was loaded:"
        raise StateDictError("\n".join([text, *offences]))


def _misfit_keys(model: nn.Module, state_dict: Mapping[str, Any], prefix: str) -> list[str]:
    """Name the keys that are missing or too many, where every module loads plainly."""
    expected: set[str] = set()
    optional: set[str] = set()
    for name, module in model.named_modules(prefix=prefix[:-1], remove_duplicate=False):
        key = f"{name}." if name else ""
        if not isinstance(module, SparseLayer) and not (
            _loads_plainly(module) and _loads_as_it_is(module, is_root=module is model)
        ):
            return []
        own = {key + each for each, tensor in _saved_tensors(module).items() if tensor is not None}
        expected |= own
        if isinstance(module, SparseLayer) and key + "indices" in state_dict:
            optional.add(key + "seal")  # states were saved before there were seals
        if is_mark(state_dict.get(key + "weight")):
            optional.add(key + "weight")
    given = {key for key in state_dict if key.startswith(prefix)}
    missing, unexpected = expected - optional - given, given - expected - optional
    offences = []
    if missing:
        offences.append(f"Missing key(s): {', '.join(sorted(missing))}")
    if unexpected:
        offences.append(f"Unexpected key(s): {', '.join(sorted(unexpected))}")
    return offences


def _loads_plainly(module: nn.Module) -> bool:
    """Return whether a module neither adds keys to a state nor does without some."""
    kind = type(module)
    return (
        kind._load_from_state_dict is nn.Module._load_from_state_dict
        and kind.get_extra_state is nn.Module.get_extra_state
        and not module._load_state_dict_post_hooks
    )


def _loads_as_it_is(module: nn.Module, *, is_root: bool) -> bool:
    """Return whether a module loads tensors of its own shapes only, as torch's modules do."""
    hooks = module._load_state_dict_pre_hooks.values()
    return type(module)._load_from_state_dict.__module__.startswith("torch.nn.") and (
        is_root or all(map(_is_this_check, hooks))
    )


def _is_this_check(hook: Any) -> bool:
    return getattr(hook, "hook", hook) is _check_first


def _shapes_that_differ(
    module: nn.Module, state_dict: Mapping[str, Any], prefix: str, assign: bool
) -> list[str]:
    offences = []
    for name, own in _saved_tensors(module).items():
        if own is None or is_lazy(own) or prefix + name not in state_dict:
            continue
        saved = state_dict[prefix + name]
        if not isinstance(saved, Tensor):
            offences.append(f"`{prefix}{name}` must be a torch.Tensor, got {type(saved).__name__}")
        elif saved.shape != own.shape and not (own.dim() == 0 and saved.shape == (1,)):
            offences.append(
                f"`{prefix}{name}` must have shape {tuple(own.shape)}, got {tuple(saved.shape)}"
            )
        elif (
            assign
            and name in module._parameters
            and own.is_floating_point()
            and not saved.is_floating_point()
        ):
            offences.append(f"`{prefix}{name}` must be of floating point, got {saved.dtype}")
        elif saved.layout != own.layout:
            offences.append(f"`{prefix}{name}` must have layout {own.layout}, got {saved.layout}")
        elif saved.is_meta and not own.is_meta and not assign:
            offences.append(f"`{prefix}{name}` is on the meta device and has no content to load")
    return offences


def _saved_tensors(module: nn.Module) -> dict[str, Tensor | None]:
    transient = module._non_persistent_buffers_set
    buffers = {name: b for name, b in module._buffers.items() if name not in transient}
    return {**module._parameters, **buffers}


# States of one layer


def holds_topology(state_dict: Mapping[str, Any], prefix: str) -> bool:
    """Return whether a state holds a topology: both positions and values.

    Raises:
        ValueError: the state holds only one of the two.
    """
    missing = [name for name in ("indices", "values") if prefix + name not in state_dict]
    if len(missing) == 1:
        raise ValueError(
            f"`{prefix}{missing[0]}` is missing: values mean nothing without their positions. "
            "Save and load both, or neither."
        )
    return not missing


def check_saved_topology(
    layer: SparseLayer, state_dict: Mapping[str, Any], prefix: str, *, assign: bool
) -> Topology:
    """Return the topology of a saved state, after checking its values and bias, too.

    Raises:
        TypeError, ValueError: loading would be refused, or would fail half-way.
    """
    topology = Topology.from_indices(
        state_dict[prefix + "indices"], (layer.out_features, layer.in_features)
    )
    check_saved_seal(topology, state_dict, prefix)
    if topology.nnz != layer.nnz:
        layer.check_resizable()
    values = state_dict[prefix + "values"]
    _check_loadable(layer, prefix + "values", values, (topology.nnz,), assign)
    empty = topology.indices.is_meta
    if empty and not layer.indices.is_meta and not (assign and values.is_meta):
        raise ValueError(f"`{prefix}indices` is on the meta device and has no content to load")
    if assign and values.is_meta and not empty:
        raise ValueError(f"`{prefix}values` is on the meta device, and its indices are not")
    check_saved_bias(layer, state_dict, prefix, assign=assign)
    if assign and layer.bias is not None:
        bias = state_dict.get(prefix + "bias", layer.bias)
        dtypes = {in_full_precision(each).dtype for each in (values, bias)}
        if len(dtypes) > 1:
            raise TypeError(
                f"`{prefix}values` and `{prefix}bias` must share one dtype to be assigned, got "
                f"{values.dtype} and {bias.dtype}"
            )
    return topology


def check_saved_seal(topology: Topology, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Check that a saved topology is of this matrix and as it was when it was saved.

    A state that was saved before there were seals has none, and passes.

    Raises:
        ValueError: the seal is of another shape or of other connections, or is no seal.
    """
    if prefix + "seal" not in state_dict:
        return
    seal = state_dict[prefix + "seal"]
    if not is_seal(seal):
        raise ValueError(f"`{prefix}seal` is no seal: 192 int8, as `state_dict` saves them")
    if has_content(topology.indices) and has_content(seal):
        check_seal(topology, seal, FOREIGN)


def is_mark(entry: object) -> bool:
    """Return whether an entry `weight` of a state only keeps dense layers from loading it."""
    return isinstance(entry, Tensor) and entry.shape == (0,)


def check_saved_bias(
    layer: SparseLayer, state_dict: Mapping[str, Any], prefix: str, *, assign: bool
) -> None:
    """Check a saved bias, where the state holds one and the layer has one."""
    key = prefix + "bias"
    if layer.bias is not None and key in state_dict:
        _check_loadable(layer, key, state_dict[key], (layer.out_features,), assign)


def _check_loadable(
    layer: SparseLayer, key: str, saved: Any, shape: tuple[int, ...], assign: bool
) -> None:
    check_tensor(saved, key, shape)
    if saved.layout != torch.strided:
        raise ValueError(f"`{key}` must be a strided tensor, got layout {saved.layout}")
    if assign and not saved.is_floating_point():
        raise TypeError(f"`{key}` must be of floating point to be assigned, got {saved.dtype}")
    if saved.is_meta and not layer.weight_parameter.is_meta and not assign:
        raise ValueError(f"`{key}` is on the meta device and has no content to load")
