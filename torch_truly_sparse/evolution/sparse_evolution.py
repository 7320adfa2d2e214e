"""The hook on the optimizer that evolves a network while the user's own loop trains it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..nn import SparseLayer
from ..topology import to_positions
from .optimizer_state import fresh_entries, group_of, positional_state
from .prune import PruneRule, SignSplitMagnitude
from .record import EvolutionRecord, LayerRecord
from .regrow import RandomRegrow, RegrowRule
from .schedules import Constant, Schedule
from .topology_change import TopologyChange


@dataclass(frozen=True)
class _Plan:
    """What is about to happen to one layer; made for all layers before any is touched."""

    name: str
    layer: SparseLayer
    change: TopologyChange
    weights: Tensor  # of the new connections
    group: dict[str, Any]
    state: list[str]


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
            in several places evolves once.
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
            nothing, or the optimizer does not hold a layer's weights.

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
        if isinstance(exclude, str):
            raise TypeError(f"`exclude` must be a list of globs; write [{exclude!r}]")
        self.prune = _rule(prune, SignSplitMagnitude(), PruneRule, "prune")
        self.regrow = _rule(regrow, RandomRegrow(), RegrowRule, "regrow")
        self.fraction = fraction if callable(fraction) else Constant(fraction)
        self.every = _count(every, "every")
        self.stop = _count(stop, "stop")
        self.generator = generator
        self.history: list[EvolutionRecord] = []
        self.steps = 0
        self._model, self._optimizer = model, optimizer
        self._layers = _find_layers(model, tuple(exclude))
        fresh_entries(optimizer)
        for name, layer in self._layers.items():
            group_of(optimizer, layer.weight_parameter, name)
        self._hook = optimizer.register_step_post_hook(self._after_step)

    def step(self) -> EvolutionRecord:
        """Evolve now.

        Returns:
            What was done, also appended to `history`.

        Raises:
            TypeError, ValueError: as for the constructor; nothing is then changed.
        """
        fraction = self.fraction(self.steps)
        plans = [self._plan(name, layer, fraction) for name, layer in self._layers.items()]
        for plan in plans:
            self._apply(plan)
        record = EvolutionRecord(
            self.steps,
            fraction,
            tuple(
                LayerRecord(
                    plan.name,
                    int(plan.change.dropped.sum()),
                    int(plan.change.grown.sum()),
                    plan.layer.nnz,
                )
                for plan in plans
            ),
        )
        self.history.append(record)
        return record

    def remove(self) -> None:
        """Take the hook off the optimizer: the topology stays as it is from now on."""
        self._hook.remove()

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

    @torch.no_grad()
    def _plan(self, name: str, layer: SparseLayer, fraction: float) -> _Plan:
        parameter = layer.weight_parameter
        group = group_of(self._optimizer, parameter, name)
        state = positional_state(self._optimizer, parameter, name)
        weights = layer.gather(parameter.detach())
        dropped = self.prune.select(weights, fraction, generator=self.generator)
        if dropped.dtype != torch.bool or dropped.shape != weights.shape:
            raise ValueError(
                f"{self.prune!r} must select with a bool tensor of shape {tuple(weights.shape)}, "
                f"got {dropped.dtype} of shape {tuple(dropped.shape)}"
            )
        survivors = to_positions(layer.indices, layer.in_features)[~dropped]
        count = weights.shape[0] - survivors.shape[0]
        regrown = self.regrow.select(layer, survivors, count, generator=self.generator)
        if regrown.dtype != torch.int64 or regrown.shape != (count,):
            raise ValueError(
                f"{self.regrow!r} must select {count} int64 positions, "
                f"got {regrown.dtype} of shape {tuple(regrown.shape)}"
            )
        change = TopologyChange.merge(
            survivors, dropped, regrown, layer.out_features, layer.in_features
        )
        new_weights = self.regrow.draw_weights(
            layer, change.indices[:, change.grown], change.indices, generator=self.generator
        )
        if new_weights.dtype != weights.dtype or new_weights.shape != (count,):
            raise ValueError(
                f"{self.regrow!r} must draw {count} weights of {weights.dtype}, "
                f"got {new_weights.dtype} of shape {tuple(new_weights.shape)}"
            )
        return _Plan(name, layer, change, new_weights, group, state)

    @torch.no_grad()
    def _apply(self, plan: _Plan) -> None:
        layer, change, parameter = plan.layer, plan.change, plan.layer.weight_parameter
        followers: list[tuple[Tensor, Tensor | float]] = [(parameter, plan.weights)]
        if parameter.grad is not None:
            followers.append((parameter.grad, 0.0))
        fresh = fresh_entries(self._optimizer)
        for key in plan.state:
            entry = self._optimizer.state[parameter][key]
            followers.append((entry, fresh[key](plan.group, plan.weights)))
        moved = [
            (tensor, change.move(layer.gather(tensor.detach()), entry))
            for tensor, entry in followers
        ]
        layer.replace_topology(change.indices)
        for tensor, entries in moved:
            layer.scatter_(tensor, entries)


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


def _find_layers(model: nn.Module, exclude: tuple[str, ...]) -> dict[str, SparseLayer]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise TypeError(
            "`model` is wrapped in DistributedDataParallel, whose ranks would each evolve a "
            "topology of their own; evolving across processes is not supported yet"
        )
    layers = {name: m for name, m in model.named_modules() if isinstance(m, SparseLayer)}
    for glob in exclude:
        if not any(fnmatchcase(name, glob) for name in layers):
            raise ValueError(
                f"`exclude` has {glob!r}, which matches no sparse layer; there are: "
                + (", ".join(layers) or "none")
            )
    kept = {
        name: layer
        for name, layer in layers.items()
        if not any(fnmatchcase(name, glob) for glob in exclude)
    }
    if not kept:
        raise ValueError(
            "`model` has no sparse layer to evolve: use TrulySparseLinear in place of nn.Linear, "
            "and do not exclude all of them"
        )
    return kept
