"""Evolution within `lightning.Trainer.fit`: made, saved and restored with the training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .._arguments import as_int
from ..distributed import prepare
from ..evolution.sparse_evolution import SparseEvolution
from ..optim import SGD, AdamW
from .logger import SparsityLogger

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import (
        GradientAccumulationScheduler,
        StochasticWeightAveraging,
    )

    try:
        from lightning.pytorch.callbacks import WeightAveraging
    except ImportError:  # before Lightning 2.6
        WeightAveraging = StochasticWeightAveraging  # type: ignore[assignment,misc]
except ImportError as error:
    raise ImportError(
        "torch_truly_sparse.integrations.lightning needs Lightning: "
        "pip install 'torch_truly_sparse[lightning]'"
    ) from error

__all__ = ["EvolutionCallback"]

Method = Callable[..., SparseEvolution]


class EvolutionCallback(Callback):
    """Evolves the sparse layers of a module while `Trainer.fit` trains it.

    The evolution is made when training begins, for the module's optimizer; its steps, history and
    random state are saved in Lightning's checkpoints and restored from them, so that a resumed fit
    equals one that never stopped, bit for bit. With several processes the layers are prepared
    (`tts.distributed.prepare`) before `DistributedDataParallel` wraps the module.

    Args:
        method: `tts.SparseEvolution`, `tts.SET`, `tts.RigL`, `tts.MEST`, `tts.SparseMomentum`, or a
            function that takes a module, an optimizer and the settings and returns an evolution.
        every: optimizer steps between evolutions, or `"epoch"` for as many as an epoch has.
        optimizer: the number of the optimizer among those that `configure_optimizers` returns.
        logger: a `SparsityLogger` of `torch_truly_sparse.integrations.logger`, or None.
        settings: for `method`. `total_steps`, where the method asks for it and it is not given, is
            the number of optimizer steps of the fit.

    Attributes:
        evolution: the evolution of the present or last fit, or None before the first.

    Raises:
        TypeError, ValueError: when the fit begins: as `method`; the trainer also averages weights
            (see below), clips gradients that do not exist, or has no fixed number of steps in an
            epoch and `every` is `"epoch"`.

    Lightning's `WeightAveraging` and `StochasticWeightAveraging` are refused: they would average
    weights of connections that evolution has moved. `tts.nn.AveragedModel` keeps track of them.

    Example:
        >>> from torch_truly_sparse import SET
        >>> callback = EvolutionCallback(SET, every="epoch", fraction=0.3)
        >>> # lightning.Trainer(max_epochs=10, callbacks=[callback]).fit(module, loader)
    """

    def __init__(
        self,
        method: Method = SparseEvolution,
        *,
        every: int | str = "epoch",
        optimizer: int = 0,
        logger: SparsityLogger | None = None,
        **settings: Any,
    ) -> None:
        if not callable(method):
            raise TypeError(
                "`method` must be a class such as tts.SET, or a function that returns an "
                f"evolution, got {type(method).__name__}"
            )
        self._method = method
        self._every = every if every == "epoch" else as_int(_number(every), "every", least=1)
        self._optimizer = as_int(optimizer, "optimizer", least=0)
        self._logger = logger
        self._settings = settings
        self.evolution: SparseEvolution | None = None
        self._saved: list[dict[str, Any]] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the layers for several processes; refuse what cannot go together."""
        if stage != "fit":
            return
        for other in _callbacks(trainer):
            if isinstance(other, WeightAveraging | StochasticWeightAveraging):
                raise ValueError(
                    f"{type(other).__name__} averages weights whose connections evolution moves; "
                    "average with tts.nn.AveragedModel instead, whose averages follow the "
                    "topology, or train without EvolutionCallback"
                )
        if trainer.world_size > 1:
            prepare(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the evolution, and give it its saved state."""
        optimizers = trainer.optimizers
        if self._optimizer >= len(optimizers):
            raise ValueError(
                f"`optimizer` is {self._optimizer}, and `configure_optimizers` returned "
                f"{len(optimizers)}"
            )
        optimizer = optimizers[self._optimizer]
        if isinstance(optimizer, SGD | AdamW) and trainer.gradient_clip_val:
            raise ValueError(
                "`gradient_clip_val` clips gradients, and tts.optim uses those of sparse weights "
                "up within the backward pass: give `clip_value=` to the optimizer, or use one of "
                "torch.optim"
            )
        self._end()
        self.evolution = self._made(trainer, pl_module, optimizer)
        if self._logger is not None and trainer.is_global_zero:
            self._logger.attach(self.evolution)
        if self._saved is not None:
            self.evolution.load_state_dict(_own(self._saved, trainer))
            self._saved = None

    def _made(self, trainer: Trainer, module: nn.Module, optimizer: Optimizer) -> SparseEvolution:
        settings = dict(self._settings)
        settings["every"] = steps_in_epoch(trainer) if self._every == "epoch" else self._every
        wanted = inspect.signature(self._method).parameters
        if "total_steps" in wanted and "total_steps" not in settings:
            steps = trainer.estimated_stepping_batches
            if math.isinf(steps):
                raise ValueError(
                    "the trainer has no fixed number of steps: give `total_steps=` to "
                    "EvolutionCallback, or `max_epochs=` or `max_steps=` to the Trainer"
                )
            settings["total_steps"] = int(steps)
        return self._method(module, optimizer, **settings)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the evolution off the optimizer; its history stays."""
        if stage == "fit":
            self._end()

    def _end(self) -> None:
        if self.evolution is not None:
            self.evolution.remove()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the evolution on each rank; Lightning saves it."""
        if self.evolution is None:
            return {} if self._saved is None else {"ranks": self._saved}
        own = self.evolution.state_dict()
        if not _several():
            return {"ranks": [own]}
        states: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(states, own)
        return {"ranks": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state for the evolution that the next fit makes."""
        self._saved = state_dict.get("ranks")


def steps_in_epoch(trainer: Trainer) -> int:
    """Return the number of optimizer steps in an epoch of a fit that has begun.

    Raises:
        ValueError: it is not fixed: the data have no length, or accumulation changes.
    """
    batches = trainer.num_training_batches
    changing = any(isinstance(each, GradientAccumulationScheduler) for each in _callbacks(trainer))
    if changing or math.isinf(batches):
        raise ValueError(
            'an epoch has no fixed number of optimizer steps: give `every=` a number, not "epoch"'
        )
    return max(1, math.ceil(batches / trainer.accumulate_grad_batches))


def _callbacks(trainer: Trainer) -> Iterable[Any]:
    return trainer.callbacks  # type: ignore[attr-defined, no-any-return]


def _number(every: int | str) -> int:
    if isinstance(every, str):
        raise ValueError(f'`every` must be "epoch" or a number of optimizer steps, got {every!r}')
    return every


def _several() -> bool:
    distributed = torch.distributed
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def _own(states: list[dict[str, Any]], trainer: Trainer) -> dict[str, Any]:
    """Return the saved state of this rank.

    Raises:
        ValueError: another number of ranks has saved it, and its captured passes belong to them.
    """
    if len(states) == trainer.world_size:
        return states[trainer.global_rank]
    if any(any(state["captured"].values()) for state in states):
        raise ValueError(
            f"the checkpoint was saved by {len(states)} processes, and {trainer.world_size} resume "
            "it: growth by gradient needs the passes that each of them has captured. Resume with "
            "as many processes"
        )
    return states[0]
