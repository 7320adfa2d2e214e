"""The hook on the optimizer that evolves a network while the user's own loop trains it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .layer_step import plan
from .model_layers import find_layers
from .optimizer_state import check_supported, group_of
from .prune import PruneRule, SignSplitMagnitude
from .record import EvolutionRecord
from .regrow import RandomRegrow, RegrowRule
from .schedules import Constant, Schedule

# Those whose hook is in place. The optimizers hold them; this only looks on.
_live: weakref.WeakSet[SparseEvolution] = weakref.WeakSet()


class SparseEvolution:
    """Prunes the weakest connections and regrows as many elsewhere, between epochs.

    A hook on the optimizer; the training loop stays as it is. Every layer keeps its number of
    connections, exactly, and its parameters stay the same objects. Survivors keep their weight,
    their gradient and their optimizer state; a new connection gets the state that a fresh
    optimizer would give it.

    With `every=N` the network evolves right after the first optimizer step of the next interval
    (steps N + 1, 2 N + 1, ...): an evaluation between epochs sees the trained weights, and nothing
    evolves after the last epoch.

    Args:
        model: a module that holds `TrulySparseLinear` (or `MaskedLinear`) layers. A layer used
            in several places evolves once; one whose weights do not require gradients, not.
        optimizer: the one that trains it. SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adadelta,
            Adafactor, RMSprop, Adagrad, Rprop, ASGD; others through
            `evolution.register_optimizer`.
        prune: which connections go.
        regrow: where new ones appear.
        fraction: share of each layer's connections to replace, in [0, 1] (zeta in papers), or a
            schedule.
        every: optimizer steps between evolutions, usually len(loader); None evolves only when
            `step()` is called.
        stop: the last optimizer step after which the network may evolve; None for no end.
        exclude: globs of the names of layers (as in `model.named_modules()`) to leave alone.
            Layers that are nearly dense are best left alone.
        generator: source of randomness, or None for torch's default generator.

    Attributes:
        history: one `EvolutionRecord` for each evolution.
        steps: optimizer steps seen.

    Raises:
        TypeError: the optimizer's state cannot be followed, or an argument has the wrong type.
        ValueError: an argument is out of range, there is nothing to evolve, a glob matches
            nothing, the optimizer does not hold a layer's weights, or a layer evolves already.

    Cost of an evolution: O(nnz log nnz) time, O(nnz) memory.

    Note: `copy.deepcopy` of an optimizer drops its hooks, this one included.

    Source: SET, Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3), with the defaults' settings.

    Example:
        >>> from torch_truly_sparse import TrulySparseLinear
        >>> model = nn.Sequential(TrulySparseLinear(20, 30, density=0.1), nn.ReLU())
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        >>> evolution = SparseEvolution(model, optimizer, fraction=0.3)
        >>> print(evolution.step())
        evolution after step 0: fraction 0.3, pruned 18, regrown 18
          0: -18 +18 of 60
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        prune: PruneRule | None = None,
        regrow: RegrowRule | None = None,
        fraction: float | Schedule = 0.3,
        every: int | None = None,
        stop: int | None = None,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.prune = _rule(prune, SignSplitMagnitude(), PruneRule, "prune")
        self.regrow = _rule(regrow, RandomRegrow(), RegrowRule, "regrow")
        self.fraction = _schedule(fraction)
        self.every = _count(every, "every")
        self.stop = _count(stop, "stop")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"`generator` must be a torch.Generator or None, got {type(generator).__name__}"
            )
        self.generator = generator
        self.history: list[EvolutionRecord] = []
        self.steps = 0
        self._optimizer = optimizer
        self._layers = find_layers(model, exclude)
        check_supported(optimizer)
        for name, layer in self._layers.items():
            group_of(optimizer, layer.weight_parameter, name)
        self._check_alone()
        self._hook = optimizer.register_step_post_hook(self._after_step)
        _live.add(self)

    def step(self) -> EvolutionRecord:
        """Evolve now.

        Returns:
            What was done, also appended to `history`.

        Raises:
            TypeError, ValueError: as for the constructor; nothing is then changed.
        """
        fraction = self.fraction(self.steps)
        if not 0 <= fraction <= 1:
            raise ValueError(
                f"`fraction` must give numbers in [0, 1], got {fraction} after step {self.steps}"
            )
        plans = [
            plan(name, layer, self._optimizer, self.prune, self.regrow, fraction, self.generator)
            for name, layer in self._layers.items()
            if layer.weight_parameter.requires_grad
        ]
        layers = tuple(planned.apply() for planned in plans)
        record = EvolutionRecord(self.steps, fraction, layers)
        self.history.append(record)
        return record

    def remove(self) -> None:
        """Take the hook off the optimizer: the topology stays as it is from now on."""
        self._hook.remove()
        _live.discard(self)

    def state_dict(self) -> dict[str, Any]:
        """Save what a resumed run needs: the steps seen, the history, the generator's state.

        Returns:
            A dictionary that `torch.load(weights_only=True)` reads. The topologies are in the
            model's state, and what follows them in the optimizer's. Without a `generator` of its
            own, the evolution draws from torch's default one, whose state is yours to save.
        """
        return {
            "steps": self.steps,
            "history": [asdict(record) for record in self.history],
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: entries are missing, or only one of the two evolutions has a generator of
                its own; nothing is then changed.
        """
        missing = {"steps", "history", "generator"} - set(state)
        if missing:
            raise ValueError(f"`state` lacks {', '.join(sorted(missing))}")
        if (state["generator"] is None) != (self.generator is None):
            raise ValueError(
                "`state` was saved "
                + ("without" if state["generator"] is None else "with")
                + " a generator: make this SparseEvolution in the same way"
            )
        history = [EvolutionRecord.from_dict(record) for record in state["history"]]
        if self.generator is not None:
            self.generator.set_state(state["generator"])
        self.steps, self.history = int(state["steps"]), history

    def _after_step(self, *_: Any) -> None:
        self.steps += 1
        if self.every is None or (self.stop is not None and self.steps > self.stop):
            return
        if self.steps > 1 and (self.steps - 1) % self.every == 0:
            self.step()

    def _check_alone(self) -> None:
        for other in _live:
            if other._optimizer is self._optimizer:
                shared = [
                    name
                    for name, layer in self._layers.items()
                    if any(layer is theirs for theirs in other._layers.values())
                ]
                if shared:
                    raise ValueError(
                        f"layer {shared[0]!r} already evolves with this optimizer and would "
                        "evolve twice; call `remove()` on the earlier SparseEvolution first"
                    )


def _rule(given: Any, default: Any, kind: type, name: str) -> Any:
    rule = default if given is None else given
    if not isinstance(rule, kind):
        hint = f"; write {rule.__name__}()" if isinstance(rule, type) else ""
        raise TypeError(f"`{name}` must be a {kind.__name__}, got {rule!r}{hint}")
    return rule


def _count(value: int | None, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an int or None, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1, got {value}")
    return value


def _schedule(fraction: float | Schedule) -> Schedule:
    if isinstance(fraction, int | float) and not isinstance(fraction, bool):
        return Constant(fraction)
    if callable(fraction) and not isinstance(fraction, type):
        return fraction
    raise TypeError(f"`fraction` must be a number or a schedule, got {fraction!r}")
