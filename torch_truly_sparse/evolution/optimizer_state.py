"""How the state of an optimizer follows its weights.

Survivors keep every entry; a new connection gets the entry that a fresh optimizer would give it;
`step` counters and other entries that belong to the parameter as a whole stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, SupportsFloat

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .._arguments import as_float

# The fresh entries of new connections, from the settings of their group and their new weights.
Fresh = Callable[[dict[str, Any], Tensor], Tensor | float]


def _same(entry: float, group: dict[str, Any], weights: Tensor) -> float:
    return entry


_zero = partial(_same, 0.0)


def _zeros(*keys: str) -> dict[str, Fresh]:
    return dict.fromkeys(keys, _zero)


# The state entries that hold one number for each weight, by class. Entries of a single number stay
# as they are.
_FRESH: dict[type[Optimizer], Mapping[str, Fresh]] = {
    torch.optim.SGD: _zeros("momentum_buffer"),
    torch.optim.Adam: _zeros("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    torch.optim.AdamW: _zeros("exp_avg", "exp_avg_sq", "max_exp_avg_sq"),
    torch.optim.NAdam: _zeros("exp_avg", "exp_avg_sq"),
    torch.optim.RAdam: _zeros("exp_avg", "exp_avg_sq"),
    torch.optim.Adamax: _zeros("exp_avg", "exp_inf"),
    torch.optim.Adadelta: _zeros("square_avg", "acc_delta"),
    torch.optim.Adafactor: _zeros("variance"),
    torch.optim.RMSprop: _zeros("square_avg", "momentum_buffer", "grad_avg"),
    torch.optim.Adagrad: {"sum": lambda group, weights: group["initial_accumulator_value"]},
    torch.optim.Rprop: {"prev": _zero, "step_size": lambda group, weights: float(group["lr"])},
    torch.optim.ASGD: {"ax": lambda group, weights: weights},
}


def register_optimizer(optimizer: type[Optimizer], fresh: Mapping[str, Fresh | float]) -> None:
    """Say how the state of another optimizer follows the weights.

    Args:
        optimizer: the class; its subclasses follow, too.
        fresh: for each state entry of the parameter's shape, what a new connection gets: a
            number, or a function of the parameter group and the (count,) new weights.

    Raises:
        TypeError: `optimizer` is no optimizer class, or `fresh` gives something else.

    Example:
        >>> class SignSGD(torch.optim.Optimizer): ...
        >>> register_optimizer(SignSGD, {"momentum": 0.0})
    """
    if not (isinstance(optimizer, type) and issubclass(optimizer, Optimizer)):
        raise TypeError(f"`optimizer` must be a subclass of torch.optim.Optimizer: {optimizer!r}")
    for key, entry in fresh.items():
        if not callable(entry):
            as_float(entry, f"fresh[{key!r}]")
    _FRESH[optimizer] = {
        key: entry if callable(entry) else partial(_same, float(entry))
        for key, entry in fresh.items()
    }


def check_supported(optimizer: Optimizer) -> Mapping[str, Fresh]:
    """Return what a new connection gets in each state entry of an optimizer.

    Raises:
        TypeError: `optimizer` is no optimizer, or one whose state cannot follow a topology.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"`optimizer` must be a torch.optim.Optimizer, got {type(optimizer).__name__}"
        )
    for known in type(optimizer).__mro__:
        if known in _FRESH:
            return _FRESH[known]
    names = ", ".join(sorted(known.__name__ for known in _FRESH))
    raise TypeError(
        f"the state of {type(optimizer).__name__} cannot follow an evolving topology; use one of "
        f"{names}, or describe its state with tts.evolution.register_optimizer. Of an optimizer "
        "that calls another one (SAM), give the other one (`base_optimizer`)"
    )


def inner_optimizer(optimizer: Optimizer) -> Optimizer:
    """Return the optimizer that a wrapper around it calls, as Accelerate's is; or the optimizer.

    A wrapper counts as one if it is not known itself, holds a whole optimizer as `optimizer` and
    shares that optimizer's state: then nothing of the wrapper's own has to follow the topology.
    """
    while not any(known in _FRESH for known in type(optimizer).__mro__):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, Optimizer) or getattr(optimizer, "state", None) is not inner.state:
            break
        optimizer = inner
    return optimizer


def fresh_entry(
    optimizer: Optimizer, key: str, group: dict[str, Any], weights: Tensor, dtype: torch.dtype
) -> Tensor | float:
    """Return one state entry of new connections.

    Raises:
        TypeError, ValueError: a function given to `register_optimizer` returned something else.
    """
    entry = check_supported(optimizer)[key](group, weights)
    wanted = (
        f"the fresh {key!r} of {type(optimizer).__name__} must be a number or a tensor of shape "
        f"{tuple(weights.shape)}"
    )
    if not isinstance(entry, Tensor):
        if isinstance(entry, SupportsFloat):
            return float(entry)
        raise TypeError(f"{wanted}, got {entry!r}")
    if entry.shape != weights.shape:
        raise ValueError(f"{wanted}, got shape {tuple(entry.shape)}")
    return entry.to(dtype)


def group_of(optimizer: Optimizer, parameter: nn.Parameter, name: str) -> dict[str, Any]:
    """Find the parameter group that holds a parameter.

    Raises:
        ValueError: none does.
    """
    for group in optimizer.param_groups:
        if any(candidate is parameter for candidate in group["params"]):
            return group
    raise ValueError(
        f"the weights of layer {name!r} are not in the optimizer, so it would not train them: "
        "make the optimizer after the model is complete, or leave the layer out with `exclude`"
    )


def positional_state(optimizer: Optimizer, parameter: nn.Parameter, name: str) -> list[str]:
    """Name the state entries that hold one number per weight.

    Raises:
        TypeError: an entry cannot be followed.
    """
    known, keys = check_supported(optimizer), []
    for key, entry in optimizer.state.get(parameter, {}).items():
        whole = not isinstance(entry, Tensor | list | tuple | dict)
        if whole or (isinstance(entry, Tensor) and entry.dim() == 0):
            continue  # one number for the parameter as a whole
        plain = isinstance(entry, Tensor) and type(entry) in (Tensor, nn.Parameter)
        shape = tuple(entry.shape) if plain else type(entry).__name__
        if key not in known or shape != tuple(parameter.shape):
            raise TypeError(
                f"state {key!r} of {type(optimizer).__name__} for layer {name!r} ({shape}) cannot "
                "follow an evolving topology; describe it with "
                "tts.evolution.register_optimizer, or leave the layer out with `exclude`"
            )
        keys.append(key)
    return keys
