"""Optimizers that update sparse weights within their backward pass: no gradient array exists.

They are used like those of `torch.optim`, in the same loop:

    optimizer = tts.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for input, target in loader:
        optimizer.zero_grad()
        loss = criterion(model(input), target)
        loss.backward()    # the weights of sparse layers are updated here
        optimizer.step()   # everything else is updated here

A step of a large network then touches 28 to 36 bytes a weight instead of 44, and needs 4 bytes a
weight less memory (SGD with momentum, float32).

`backward()` moves weights, so everything that must come before an update must come before it:

- settings (learning rate, momentum, ...) are read during `backward()`; schedulers that step after
  `optimizer.step()` work as usual;
- one `backward()` and one `step()` make one update: a second backward pass before `step()`
  (gradient accumulation), or a layer that is used twice in one forward pass, raises;
- `torch.nn.utils.clip_grad_norm_` cannot see a gradient that does not exist, nor can a penalty on
  the weights be added to it, nor can a `GradScaler` divide it. Give `clip_value=` and
  `weight_decay=` to the optimizer, and train in bfloat16 or float32.

Where something needs the gradient itself, it is made as usual and `step()` applies it: while growth
by gradient (RigL) looks at a layer, where a hook is on the weights, in compiled models, under
activation checkpointing, and where `torch.distributed` is at work. `torch.autograd.grad` updates
nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ._arguments import as_float
from .ops import (
    CsrParts,
    OtherGradients,
    hand_over,
    owner_of,
    spmm_backward_adamw,
    spmm_backward_sgd,
)

__all__ = ["SGD", "AdamW"]

Parameters = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class _UpdatesInBackward(Optimizer):
    """What both optimizers share: which weights they own, and what has been updated since `step`.

    Attributes:
        _group_of: the parameter group of each parameter, by the parameter's id.
        _moved: the parameters that have been updated since the last step, by their id.
    """

    # A GradScaler then tells `step` of its scale, instead of dividing gradients that are not there.
    _step_supports_amp_scaling = True

    _group_of: dict[int, dict[str, Any]]
    _moved: dict[int, Tensor]
    _clip_value: float | None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, as `torch.optim.Optimizer.add_param_group` does."""
        if isinstance(param_group, dict) and param_group.get("clip_value") is not None:
            _check_clip_value(param_group["clip_value"])
        self.defaults.setdefault("clip_value", self._clip_value)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        # Few calls for many small parameters; the numbers are the same to rounding.
        group["fused"] = all(p.is_cpu and p.is_floating_point() for p in group["params"]) or None
        self._take_over()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load a state, a copy or a pickle."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("clip_value", None)  # saved by the optimizer of torch
        self._take_over()
        self._moved.clear()  # a loaded state begins a step

    def _take_over(self) -> None:
        """Own the parameters of all groups, and look at each step."""
        if "_moved" not in self.__dict__:
            self._moved = {}
            self.register_step_pre_hook(_before_step)
            self.register_step_post_hook(_after_step)
        self._group_of = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                self._group_of[id(parameter)] = group
                if parameter.dim() == 1:
                    hand_over(parameter, self)

    def update_in_backward(
        self,
        topology: CsrParts,
        grad_output: Tensor,
        input: Tensor,
        values: Tensor,
        *,
        for_input: bool,
        for_bias: bool,
    ) -> OtherGradients:
        """Update the weights of a layer, and return its other gradients; layers call it.

        Raises:
            RuntimeError: the weights have been updated since the last step, or have a gradient.
        """
        if self.has_updated(values):
            raise RuntimeError(
                f"{_named(values)} were updated already since the last `step()`: "
                f"tts.optim.{type(self).__name__} makes one update for one backward pass. Call "
                "`step()` after each `backward()`; to accumulate gradients over several passes, or "
                f"to use a layer twice in one pass, train with torch.optim.{type(self).__name__}"
            )
        if values.grad is not None:
            raise RuntimeError(
                f"{_named(values)} hold a gradient from before this backward pass, which an update "
                f"would leave out: call `zero_grad()`, with `set_to_none=True`, before "
                f"`backward()`; to accumulate gradients, train with "
                f"torch.optim.{type(self).__name__}"
            )
        others = self._update(
            self._group_of[id(values)], topology, grad_output, input, values, for_input, for_bias
        )
        self._moved[id(values)] = values
        return others

    def has_updated(self, parameter: Tensor) -> bool:
        """Return whether a parameter has been updated since the last step."""
        return id(parameter) in self._moved

    @abstractmethod
    def _update(
        self,
        group: dict[str, Any],
        topology: CsrParts,
        grad_output: Tensor,
        input: Tensor,
        values: Tensor,
        for_input: bool,
        for_bias: bool,
    ) -> OtherGradients:
        """Make one step of the weights, by the settings of their group; all of it, or nothing."""

    def _prepare_step(self) -> None:
        """Look at the gradients before `step` applies them.

        Raises:
            RuntimeError: they do not belong to one whole step.
        """
        if getattr(self, "grad_scale", None) is not None:
            raise RuntimeError(
                f"tts.optim.{type(self).__name__} updates weights within `backward()`, before a "
                "GradScaler can divide their gradient by its scale: the weights have moved too "
                "far. Load the last checkpoint, and train in bfloat16 or float32 without a scaler, "
                f"or with torch.optim.{type(self).__name__}"
            )
        for group in self.param_groups:
            for parameter in group["params"]:
                owner = owner_of(parameter)
                if owner is not self and owner is not None and owner.has_updated(parameter):
                    raise RuntimeError(
                        f"{_named(parameter)} were updated by another optimizer of tts.optim, "
                        "which was made after this one: keep one optimizer for each parameter"
                    )
                if parameter.grad is None:
                    continue
                if self.has_updated(parameter):
                    raise RuntimeError(
                        f"{_named(parameter)} were updated within `backward()`, and got another "
                        "gradient from elsewhere (a penalty on the weights, a function of "
                        "`values`): the update lacks it. Give `weight_decay=` to the optimizer, "
                        f"or train with torch.optim.{type(self).__name__}"
                    )
                limit = _limit_of(group)
                if limit is not None:
                    parameter.grad.clamp_(-limit, limit)

    def _finish_step(self) -> None:
        """Begin the next step."""
        for parameter in self._moved.values():
            torch.autograd.graph.increment_version(parameter)  # older graphs are out of date
        self._moved.clear()


def _before_step(
    optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is None:
        with torch.no_grad():
            optimizer._prepare_step()
        return None

    def closure_and_look() -> Any:
        loss = closure()
        with torch.no_grad():
            optimizer._prepare_step()
        return loss

    return (optimizer, closure_and_look), {}


def _after_step(optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    optimizer._finish_step()


def _named(parameter: Tensor) -> str:
    return f"sparse weights of {parameter.numel()} connections"


def _check_clip_value(clip_value: Any) -> None:
    if not as_float(clip_value, "clip_value") > 0:
        raise ValueError(f"`clip_value` must be greater than 0, got {clip_value}")


def _limit_of(group: dict[str, Any]) -> float | None:
    return None if group["clip_value"] is None else float(group["clip_value"])


class SGD(_UpdatesInBackward, torch.optim.SGD):
    """`torch.optim.SGD` without a gradient array for sparse weights.

    Other parameters (biases, dense layers) are updated by `step()`, as `torch.optim.SGD` does. The
    weights agree with those that `torch.optim.SGD` trains to rounding. States are interchangeable
    between the two, and both follow a `SparseEvolution`.

    Args:
        params: parameters or groups of them, as for `torch.optim.SGD`; groups may have settings of
            their own.
        lr, momentum, dampening, weight_decay, nesterov, maximize: as for `torch.optim.SGD`.
        clip_value: each entry of each gradient is limited to [-clip_value, clip_value], as
            `torch.nn.utils.clip_grad_value_` does; None for no limit.

    Raises:
        TypeError, ValueError: a setting has the wrong type or lies out of range.
        RuntimeError: at `backward()` or `step()`: a gradient is to be accumulated or scaled, see
            this module. Weights that have been updated stay updated.

    Cost: the backward pass of a layer, plus O(nnz). Memory: 4 bytes a weight for the momentum.

    Example:
        >>> import torch_truly_sparse as tts
        >>> layer = tts.TrulySparseLinear(100, 10, density=0.1)
        >>> optimizer = tts.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
        >>> layer(torch.ones(2, 100)).sum().backward()
        >>> print(layer.values.grad)
        None
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        clip_value: float | None = None,
    ) -> None:
        if clip_value is not None:
            _check_clip_value(clip_value)
        self._clip_value = clip_value
        super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)

    def _update(
        self,
        group: dict[str, Any],
        topology: CsrParts,
        grad_output: Tensor,
        input: Tensor,
        values: Tensor,
        for_input: bool,
        for_bias: bool,
    ) -> OtherGradients:
        momentum = float(group["momentum"])
        held = self.state[values].get("momentum_buffer") if values in self.state else None
        buffer = torch.zeros_like(values) if held is None and momentum else held
        others = spmm_backward_sgd(
            topology,
            grad_output,
            input,
            values,
            buffer if momentum else None,
            for_input=for_input,
            for_bias=for_bias,
            lr=float(group["lr"]),
            momentum=momentum,
            dampening=float(group["dampening"]),
            weight_decay=float(group["weight_decay"]),
            nesterov=bool(group["nesterov"]),
            maximize=bool(group["maximize"]),
            clip_value=_limit_of(group),
            first=held is None,
        )
        if momentum:
            self.state[values]["momentum_buffer"] = buffer
        return others


class AdamW(_UpdatesInBackward, torch.optim.AdamW):
    """`torch.optim.AdamW` without a gradient array for sparse weights.

    Args:
        lr, betas, eps, weight_decay, amsgrad, maximize: as for `torch.optim.AdamW`.

    Everything else is as for `SGD`. Memory: 8 bytes a weight for the two moments, 12 with AMSGrad.

    Example:
        >>> import torch_truly_sparse as tts
        >>> layer = tts.TrulySparseLinear(100, 10, density=0.1)
        >>> optimizer = tts.optim.AdamW(layer.parameters(), lr=1e-3, clip_value=1.0)
        >>> layer(torch.ones(2, 100)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: Parameters,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        clip_value: float | None = None,
    ) -> None:
        if clip_value is not None:
            _check_clip_value(clip_value)
        self._clip_value = clip_value
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)

    def _update(
        self,
        group: dict[str, Any],
        topology: CsrParts,
        grad_output: Tensor,
        input: Tensor,
        values: Tensor,
        for_input: bool,
        for_bias: bool,
    ) -> OtherGradients:
        state = dict(self.state.get(values, {})) or {
            "step": torch.tensor(0.0, dtype=torch.float32),
            "exp_avg": torch.zeros_like(values),
            "exp_avg_sq": torch.zeros_like(values),
        }
        if group["amsgrad"] and "max_exp_avg_sq" not in state:
            state["max_exp_avg_sq"] = torch.zeros_like(values)
        beta1, beta2 = group["betas"]
        others = spmm_backward_adamw(
            topology,
            grad_output,
            input,
            values,
            state["exp_avg"],
            state["exp_avg_sq"],
            state["max_exp_avg_sq"] if group["amsgrad"] else None,
            for_input=for_input,
            for_bias=for_bias,
            lr=float(group["lr"]),
            betas=(float(beta1), float(beta2)),
            eps=float(group["eps"]),
            weight_decay=float(group["weight_decay"]),
            maximize=bool(group["maximize"]),
            clip_value=_limit_of(group),
            step=float(state["step"]) + 1,
        )
        state["step"] += 1
        self.state[values].update(state)
        return others
