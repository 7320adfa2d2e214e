"""Keeps what the weight gradients of layers are made of, for a few optimizer steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..._torch_internals import break_graph, current_backward, version_of
from ...nn import SparseLayer


@dataclass(frozen=True)
class Pass:
    """One backward pass through a layer.

    Attributes:
        input: (*, in_features).
        grad_output: (*, out_features) gradient of the loss in the layer's output.
        version: the version of `input` in the forward pass, or None where torch counts none.
    """

    input: Tensor
    grad_output: Tensor
    version: int | None = None

    @property
    def overwritten(self) -> bool:
        """Whether the input has been changed in place since the forward pass."""
        return self.version is not None and self.version != version_of(self.input)


class GradientCapture:
    """Keeps the inputs and output gradients of one layer's backward passes.

    Only passes whose gradient really arrives in the layer's `grad` count: not an evaluation, not
    `torch.autograd.grad`, not what a `zero_grad` has thrown away. Several passes in one optimizer
    step (gradient accumulation, a layer used twice, activation checkpointing) all count. What
    reaches `grad` by way of a gradient of a gradient (a gradient penalty) is left out: it does not
    pass through the output.

    Args:
        layer: the layer.
        steps: how many of the last optimizer steps to keep.

    Memory: references to the tensors, until `release`; nothing is copied.
    """

    def __init__(self, layer: SparseLayer, steps: int) -> None:
        parameter = layer.weight_parameter
        self._parameter = parameter
        self._steps: deque[list[Pass]] = deque(maxlen=steps)
        self._now: list[Pass] = []
        self._left: tuple[int, int] | None = None  # `grad` as the last pass left it
        # Passes of a backward that is under way, by its number: it has not reached `grad` yet.
        self._under_way: dict[int, list[Pass]] = {}
        self._handles: list[RemovableHandle] = [
            layer.register_forward_hook(_ForwardHook(self), with_kwargs=True),
            parameter.register_post_accumulate_grad_hook(self._after_accumulation),
        ]

    @property
    def captured(self) -> tuple[tuple[Pass, ...], ...]:
        """The passes of each step, oldest first; those since the last step come last."""
        steps = [*self._steps, self._now] if self._now else [*self._steps]
        kept = self._steps.maxlen or 0
        return tuple(tuple(step) for step in steps[-kept:])

    def restore(self, captured: tuple[tuple[Pass, ...], ...]) -> None:
        """Put saved steps in place of what has been captured."""
        self._steps.clear()
        self._steps.extend(list(step) for step in captured)
        self._now = []

    def end_step(self) -> None:
        """Note that the optimizer has made a step."""
        self._steps.append(self._now)
        self.drop_step()

    def drop_step(self) -> None:
        """Forget the passes since the last step, because the optimizer skipped this one."""
        self._now = []
        self._under_way.clear()

    def release(self) -> None:
        """Take every hook off and let go of every tensor."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._steps.clear()
        self.drop_step()

    def after_forward(self, input: Tensor, output: Tensor) -> None:
        """Keep the input until the gradient of the output arrives."""
        if output.requires_grad:
            version = None if input.is_inference() else version_of(input)
            hook = partial(self._on_gradient, input.detach(), version)
            self._handles.append(output.register_hook(hook))

    def _on_gradient(self, input: Tensor, version: int | None, grad_output: Tensor) -> None:
        backward = current_backward()
        if backward not in self._under_way:
            if self._now and self._zeroed_since():
                self._now = []
            self._under_way[backward] = []
        self._under_way[backward].append(Pass(input, grad_output.detach(), version))

    def _after_accumulation(self, _: Tensor) -> None:
        self._now += self._under_way.pop(current_backward(), [])
        self._left = _mark(self._parameter.grad)

    def _zeroed_since(self) -> bool:
        """Whether a `zero_grad` has thrown away what the last pass left in `grad`.

        A gradient that is 0 at all present connections may be a true one, so it is one that nobody
        has written to since.
        """
        gradient = self._parameter.grad
        if gradient is None:
            return True
        return _mark(gradient) != self._left and not gradient.any()


def _mark(gradient: Tensor | None) -> tuple[int, int] | None:
    """Return what changes when a gradient is replaced or written to."""
    return None if gradient is None else (gradient.data_ptr(), version_of(gradient))


class _ForwardHook:
    """Reports each forward pass of a layer; in a copy or a pickle of the layer it does nothing.

    A model is often copied just before it evolves (weight averages, the best model so far), and
    the copy must not go on keeping its activations.
    """

    def __init__(self, capture: GradientCapture | None = None) -> None:
        self._capture = capture

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        if self._capture is not None:
            if torch.compiler.is_compiling():
                break_graph(
                    "growth by gradient reads what passes through layers, which no graph holds: "
                    "compile without `fullgraph=True`"
                )
            self._capture.after_forward(args[0] if args else kwargs["input"], output)

    def __repr__(self) -> str:
        return "of a SparseEvolution that reads this step; `evolution.remove()` takes it off"

    def __reduce__(self) -> tuple[type[_ForwardHook], tuple[()]]:
        return _ForwardHook, ()


class GradientCaptures:
    """The captures of a network's layers, by name; while there are none, nothing is captured."""

    def __init__(self) -> None:
        self._captures: dict[str, GradientCapture] = {}

    @property
    def armed(self) -> bool:
        """Whether passes are being captured."""
        return bool(self._captures)

    def arm(self, layers: Mapping[str, SparseLayer], steps: int) -> None:
        """Capture from now on; where passes are being captured already, do nothing."""
        if not self.armed:
            self._captures = {
                name: GradientCapture(layer, steps)
                for name, layer in layers.items()
                if layer.weight_parameter.requires_grad
            }

    def of(self, name: str) -> tuple[tuple[Pass, ...], ...]:
        """Return the captured passes of a layer, one tuple for each step, the oldest first."""
        return self._captures[name].captured if name in self._captures else ()

    def end_step(self) -> None:
        """Note that the optimizer has made a step."""
        for capture in self._captures.values():
            capture.end_step()

    def drop_step(self) -> None:
        """Note that the optimizer has skipped a step."""
        for capture in self._captures.values():
            capture.drop_step()

    def release(self) -> None:
        """Take every hook off and let go of every tensor."""
        for capture in self._captures.values():
            capture.release()
        self._captures = {}

    def state_dict(self) -> dict[str, list[list[tuple[Tensor, Tensor]]]]:
        """Save the captured passes: input and output gradient of each, by layer and step."""
        return {
            name: [[(each.input, each.grad_output) for each in step] for step in capture.captured]
            for name, capture in self._captures.items()
        }

    def restore(self, saved: Mapping[str, Sequence[Sequence[Pass]]]) -> None:
        """Put saved passes into the captures of the layers that are armed."""
        for name, capture in self._captures.items():
            capture.restore(tuple(tuple(step) for step in saved.get(name, ())))

    def __reduce__(self) -> tuple[type[GradientCaptures], tuple[()]]:
        return GradientCaptures, ()  # what is captured belongs to the layers, not to a copy


def read_passes(saved: Any, layers: Mapping[str, SparseLayer]) -> dict[str, list[list[Pass]]]:
    """Make passes of what `GradientCaptures.state_dict` returned.

    Raises:
        ValueError: it is something else, or belongs to layers of other sizes.
    """
    try:
        passes = {
            name: [[Pass(*pair) for pair in step] for step in saved.get(name, ())]
            for name in layers
        }
        fits = all(
            each.input.shape == (*each.grad_output.shape[:-1], layer.in_features)
            and each.grad_output.shape[-1:] == (layer.out_features,)
            for name, layer in layers.items()
            for step in passes[name]
            for each in step
        )
    except (AttributeError, TypeError) as error:
        raise ValueError(f"`state` holds no captured passes: {error}") from None
    if not fits:
        raise ValueError("`state` holds captured passes of layers of other sizes")
    return passes
