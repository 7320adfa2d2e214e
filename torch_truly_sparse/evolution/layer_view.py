"""What a rule sees of a layer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..nn import SparseLayer
from ..topology import Topology
from .gradient import CapturedGradient, Pass, Reduce


@dataclass(frozen=True)
class LayerView:
    """A layer as the rules see it when the network evolves; to be read only.

    Everything "of each connection" is a tensor (nnz,) in the order of the layer's topology. It may
    share memory with the layer, so a rule must not write to it.

    Attributes:
        name: of the layer in the model.
        layer: the layer itself.
        optimizer: the one that trains it, or None.
        step: optimizer steps taken so far.
        evolutions: evolutions done so far.
        is_output: whether the layer is the last linear one of the model.
        captured: the backward passes of the last optimizer steps, oldest first; see
            `captured_gradient`.
        reduce: averages a block of gradients across processes; None where there is one process.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> layer = TrulySparseLinear(4, 3, nnz=5, init="zeros")
        >>> LayerView("head", layer).weights
        tensor([0., 0., 0., 0., 0.])
        >>> LayerView("head", layer).gradient
        Traceback (most recent call last):
            ...
        ValueError: layer 'head' has no gradient: evolve after a backward pass and before `zero_grad`
        The optimizers of tts.optim use gradients up within the backward pass: with this rule, train with one of torch.optim
    """  # noqa: E501

    name: str
    layer: SparseLayer
    optimizer: Optimizer | None = None
    step: int = 0
    evolutions: int = 0
    is_output: bool = False
    captured: tuple[tuple[Pass, ...], ...] = ()
    reduce: Reduce | None = None
    _kept: Tensor | None = field(default=None, repr=False)

    @property
    def in_features(self) -> int:
        """Number of input units."""
        return self.layer.in_features

    @property
    def out_features(self) -> int:
        """Number of output units."""
        return self.layer.out_features

    @property
    def nnz(self) -> int:
        """Number of connections."""
        return self.layer.nnz if self._kept is None else int(self._kept.sum())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.layer.weight_parameter.dtype

    @property
    def topology(self) -> Topology:
        """Where the connections are: `topology.indices` (2, nnz), `topology.positions()` (nnz,)."""
        topology = self.layer.topology
        if self._kept is None:
            return topology
        # What is left of sorted and unique coordinates is sorted and unique.
        return Topology(topology.indices[:, self._kept].contiguous(), topology.shape)

    @property
    def weights(self) -> Tensor:
        """(nnz,) weight of each connection."""
        return self._entries(self.layer.weight_parameter.detach())

    @property
    def gradient(self) -> Tensor:
        """(nnz,) gradient of the loss in each weight, as the last backward passes left it.

        Raises:
            ValueError: there is none.
        """
        gradient = self.layer.weight_parameter.grad
        if gradient is None:
            raise ValueError(
                f"layer {self.name!r} has no gradient: evolve after a backward pass and before "
                "`zero_grad`\nThe optimizers of tts.optim use gradients up within the backward "
                "pass: with this rule, train with one of torch.optim"
            )
        return self._entries(gradient.detach())

    @property
    def momentum(self) -> Tensor:
        """(nnz,) momentum of each weight: SGD's `momentum_buffer`, Adam's `exp_avg`.

        Raises:
            ValueError: the optimizer keeps none, or has not made a step yet.
        """
        for key in ("momentum_buffer", "exp_avg"):
            if self._held(key) is not None:
                return self.state(key)
        raise ValueError(
            f"layer {self.name!r} has no momentum in {type(self.optimizer).__name__}: use "
            "SGD(momentum=...) or one of the Adams, and evolve after its first step"
        )

    def state(self, key: str) -> Tensor:
        """(nnz,) an entry of the optimizer's state for each weight, such as `"exp_avg_sq"`.

        Raises:
            ValueError: the optimizer keeps no such entry for each weight of this layer.
        """
        held = self._held(key)
        if held is None:
            raise ValueError(
                f"{type(self.optimizer).__name__} keeps no {key!r} for each weight of layer "
                f"{self.name!r}, or has not made a step yet"
            )
        return self._entries(held)

    @property
    def has_captured(self) -> bool:
        """Whether a backward pass was captured, and no input overwritten since."""
        passes = [each for step in self.captured for each in step]
        return bool(passes) and not any(each.overwritten for each in passes)

    def captured_gradient(self, decay: float = 0.0) -> CapturedGradient:
        """Return the gradient at every position, connected or not, as blocks made when asked for.

        Args:
            decay: the gradients of earlier steps count `decay ** age`; at 0 only the last step
                does.

        Raises:
            ValueError: no step was captured (the rule must say `gradient_steps`), the layer took
                no part in it, one of its inputs was overwritten since, or an input or an output
                gradient holds NaN or an infinity.
        """
        captured = self.captured if decay else self.captured[-1:]
        passes = [
            (decay**age, each) for age, step in enumerate(reversed(captured)) for each in step
        ]
        if not passes:
            raise ValueError(
                f"layer {self.name!r}: no backward pass was captured, and growth by gradient reads "
                "the inputs and output gradients of the step before. With `every=` they are "
                "captured for you, if the layer takes part in that step; without, call "
                "`evolution.arm()`, then forward, backward and `optimizer.step()`, then "
                "`evolution.step()`. Under "
                "torch.compile set torch._dynamo.config.skip_nnmodule_hook_guards = False first"
            )
        if any(each.overwritten for _, each in passes):
            raise ValueError(
                f"layer {self.name!r}: an input was changed in place between its backward pass "
                "and the evolution; give each pass a tensor of its own"
            )
        for what in ("input", "grad_output"):
            if not all(bool(getattr(each, what).isfinite().all()) for _, each in passes):
                name = "an input" if what == "input" else "an output gradient"
                raise ValueError(
                    f"layer {self.name!r}: {name} of the steps that growth by gradient reads holds "
                    "NaN or an infinity, so there is nothing to grow by; nothing was changed. The "
                    "training has diverged: lower the learning rate, clip gradients, or skip such "
                    "steps (torch.amp.GradScaler does)"
                )
        return CapturedGradient.of(
            passes, (self.out_features, self.in_features), self.dtype, self.reduce
        )

    def without(self, dropped: Tensor) -> LayerView:
        """See the same layer without some of its connections.

        Args:
            dropped: (nnz,) bool.
        """
        kept = ~dropped
        if self._kept is not None:
            kept = self._kept.masked_scatter(self._kept, kept)
        return replace(self, _kept=kept)

    def _entries(self, tensor: Tensor) -> Tensor:
        entries = self.layer.gather(tensor)
        return entries if self._kept is None else entries[self._kept]

    def _held(self, key: str) -> Tensor | None:
        parameter = self.layer.weight_parameter
        state = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
        held = state.get(key)
        fits = isinstance(held, Tensor) and held.shape == parameter.shape
        return held if fits else None
