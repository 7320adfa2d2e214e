"""Evolution within skorch's `fit` and `partial_fit`, through copies and pickles of the net."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from .._arguments import as_int
from ..evolution.sparse_evolution import SparseEvolution
from .logger import SparsityLogger

try:
    from skorch import NeuralNet
    from skorch.callbacks import Callback
except ImportError as error:
    raise ImportError(
        "torch_truly_sparse.integrations.skorch needs skorch: "
        "pip install 'torch_truly_sparse[skorch]'"
    ) from error

__all__ = ["EvolutionCallback"]


class EvolutionCallback(Callback):  # type: ignore[misc]
    """Evolves the sparse layers of a net while skorch trains it.

    The evolution is made with the first epoch of a `fit`, for `net.optimizer_`. `partial_fit` goes
    on with it; `fit` and `initialize` make a new module, and so a new evolution. A net that is
    copied or pickled (joblib, `deepcopy`, `GridSearchCV` with several processes) takes its
    evolution along, so that a copy that trains on equals the original, bit for bit.

    Args:
        method: `tts.SparseEvolution`, `tts.SET`, `tts.RigL`, `tts.MEST`, `tts.SparseMomentum`, or a
            function that takes a module, an optimizer and the settings and returns an evolution.
        every: optimizer steps between evolutions, or `"epoch"` for as many as an epoch has batches.
        seed: of the evolution's random numbers, or None for torch's default generator.
        settings: for `method`. `total_steps`, where the method asks for it and it is not given, is
            that of `max_epochs` epochs.
        module: attribute of the net that holds the module.
        optimizer: attribute of the net that holds the optimizer.
        logger: a `SparsityLogger` of `torch_truly_sparse.integrations.logger`, or None.

    Attributes:
        evolution_: the evolution of the present or last fit, or None.

    Raises:
        TypeError, ValueError: when the first epoch begins: as `method`.

    Example:
        >>> from torch_truly_sparse import SET
        >>> callback = EvolutionCallback(SET, seed=0, settings={"fraction": 0.3})
        >>> # NeuralNetClassifier(module, callbacks=[("evolution", callback)]).fit(X, y)
    """

    def __init__(
        self,
        method: Callable[..., SparseEvolution] = SparseEvolution,
        every: int | str = "epoch",
        seed: int | None = None,
        settings: Mapping[str, Any] | None = None,
        module: str = "module_",
        optimizer: str = "optimizer_",
        logger: SparsityLogger | None = None,
    ) -> None:
        self.method = method
        self.every = every
        self.seed = seed
        self.settings = settings
        self.module = module
        self.optimizer = optimizer
        self.logger = logger

    def initialize(self) -> EvolutionCallback:
        """Forget what belongs to a module that was there before."""
        self.evolution_: SparseEvolution | None = None
        self.saved_: dict[str, Any] | None = None
        return self

    def on_epoch_begin(
        self, net: NeuralNet, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any
    ) -> None:
        """Make the evolution of a new module and optimizer; go on with that of known ones."""
        optimizer = getattr(net, self.optimizer)
        if self.evolution_ is not None and self.evolution_.follows(optimizer):
            return
        if self.evolution_ is not None:
            self.evolution_.remove()
        module: nn.Module = getattr(net, self.module)
        steps = len(net.get_iterator(dataset_train, training=True))
        self.evolution_ = self.method(module, optimizer, **self._given(net, steps))
        if self.logger is not None:
            self.logger.attach(self.evolution_)
        if self.saved_ is not None:
            self.evolution_.load_state_dict(self.saved_)
            self.saved_ = None

    def _given(self, net: NeuralNet, steps: int) -> dict[str, Any]:
        """Return the settings of the evolution, from those of the callback and of the net."""
        if isinstance(self.every, str) and self.every != "epoch":
            raise ValueError(
                f'`every` must be "epoch" or a number of optimizer steps, got {self.every!r}'
            )
        every = steps if isinstance(self.every, str) else as_int(self.every, "every", least=1)
        given = {"every": every, **(self.settings or {})}
        if self.seed is not None:
            given["generator"] = torch.Generator().manual_seed(as_int(self.seed, "seed"))
        wanted = inspect.signature(self.method).parameters
        if "total_steps" in wanted:
            given.setdefault("total_steps", steps * net.max_epochs)
        return given

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the evolution: skorch copies module and optimizer each on its own."""
        state = dict(self.__dict__)
        evolution = state.pop("evolution_", None)
        if evolution is not None:
            state["saved_"] = evolution.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the saved state to the evolution that the next epoch makes."""
        self.__dict__.update(state)
        if "saved_" in state:  # it was initialized
            self.evolution_ = None
