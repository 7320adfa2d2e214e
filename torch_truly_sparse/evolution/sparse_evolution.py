"""The hook on the optimizer that evolves a network while the user's own loop trains it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .._arguments import as_float, as_int, as_scale, check_generator
from .._torch_internals import not_compiled
from ..nn import SparseLayer
from ..schedules import Schedule, as_schedule
from . import attended
from .gradient import GradientCaptures, Reduce, read_passes
from .layer_step import LayerStep, apply_all, plan_prune, plan_regrow
from .layer_view import LayerView
from .model_layers import find_layers, output_layer
from .optimizer_state import check_supported, group_of, inner_optimizer
from .prune import PruneRule, prune_rule
from .ranks import Alone, check_alone, ranks_of
from .record import EvolutionRecord, LayerChange, pack, unpack
from .redistribution import Redistribution, redistribution, share_out
from .regrow import RegrowRule, regrow_rule
from .seen_states import SeenStates
from .shrink import ShrinkRule, shrink_rule

EvolutionHook = Callable[[EvolutionRecord, Mapping[str, LayerChange]], object]

KEEP_UP_TO = 1 << 20
"""Up to so many connections in all layers, plans keep what they compute: some 30 MB."""


class SparseEvolution:
    """Prunes the weakest connections and regrows as many elsewhere, between epochs.

    It is a hook on the optimizer; the training loop stays as it is. Every layer keeps its number of
    connections, exactly, unless `shrink` or `redistribute` is given; its parameters stay the same
    objects. Survivors keep their weight, their gradient and their optimizer state; a new connection
    gets the state that a fresh optimizer would give it.

    With `every=N` the network evolves right after the first optimizer step of the next interval
    (steps N + 1, 2 N + 1, ...): an evaluation between epochs sees the trained weights, and nothing
    evolves after the last epoch. A rule that grows by gradient reads that very step.

    Args:
        model: a module that holds `TrulySparseLinear` (or `MaskedLinear`) layers. A layer used
            in several places evolves once; a layer whose weights do not require gradients does not
            evolve. A model in `DistributedDataParallel`, or the module inside, evolves on all ranks
            at once after `tts.distributed.prepare`.
        optimizer: the optimizer of the model: SGD, Adam, AdamW, NAdam, RAdam, Adamax, Adadelta,
            Adafactor, RMSprop, Adagrad, Rprop, ASGD; others through
            `tts.evolution.register_optimizer`.
        prune: which connections go: a `rules.PruneRule`, or `"sign_split"`, `"magnitude"`,
            `"magnitude_gradient"`, `"random"`.
        regrow: where new ones appear: a `rules.RegrowRule`, or `"random"`, `"gradient"`,
            `"candidate_gradient"`, `"cannistraci_hebb"`, `"momentum"`.
        fraction: share of each layer's connections to replace, in [0, 1] (zeta in papers), or a
            schedule: a function of the number of optimizer steps so far (`schedules`).
        every: optimizer steps between evolutions, usually len(loader); None evolves only when
            `step()` is called.
        stop: the last optimizer step after which the network may evolve; None for no end.
        shrink: which connections go for good, before others are replaced: a `rules.ShrinkRule`
            (`ImportancePrune`, `GradualMagnitude`), or `"importance"`; None for none.
        redistribute: how the layers share what regrows: a `rules.Redistribution`, or `"momentum"`;
            with None each layer regrows as many as it dropped.
        exclude: globs of module names (as in `model.named_modules()`; `*` matches dots, too) to
            leave alone, with all that is inside them. Layers that are nearly dense are best left
            alone.
        generator: source of randomness, or None for torch's default generator.

    Attributes:
        history: one `EvolutionRecord` for each evolution.
        steps: optimizer steps seen. A step that a `torch.amp.GradScaler` skips does not count.
        has_stepped: whether the optimizer has made a step since the hook was put on it.
        reduce: averages a block of gradients across processes before its largest entries are
            taken; None for one process. It is set for a model that was prepared for several.

    Raises:
        TypeError: the optimizer's state cannot be followed, or an argument has the wrong type.
        ValueError: an argument is out of range, there is no layer to evolve, a glob matches no
            layer, the optimizer does not hold a layer's weights, a layer evolves already, or
            several ranks are at work and the layers were neither prepared for them nor released.

    Cost of an evolution: O(nnz + out_features) time and memory for each layer, with rules that cost
    no more; growth by gradient costs what its rule says, and nothing at any other step.

    Copies: model, optimizer and evolution that are copied or pickled together, between two steps,
    evolve as the originals do. `copy.deepcopy` of the optimizer alone drops all hooks, this one
    included.

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
        prune: str | PruneRule = "sign_split",
        regrow: str | RegrowRule = "random",
        fraction: float | Schedule = 0.3,
        every: int | None = None,
        stop: int | None = None,
        shrink: str | ShrinkRule | None = None,
        redistribute: str | Redistribution | None = None,
        exclude: Iterable[str] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        self.prune = prune_rule(prune)
        self.regrow = regrow_rule(regrow)
        self.shrink = shrink_rule(shrink)
        self.redistribute = redistribution(redistribute)
        self.fraction = as_schedule(fraction, "fraction")
        self.every = None if every is None else as_int(every, "every", least=1)
        self.stop = None if stop is None else as_int(stop, "stop", least=1)
        self.generator = check_generator(generator)
        self.history: list[EvolutionRecord] = []
        self.steps = 0
        self._optimizer = optimizer = inner_optimizer(optimizer)
        self._layers = find_layers(model, exclude)
        self._output = output_layer(model)
        self._ranks = ranks_of(self._layers)
        self.reduce: Reduce | None = self._ranks.reduce
        self._captures = GradientCaptures()
        check_supported(optimizer)
        for name, layer in self._layers.items():
            group_of(optimizer, layer.weight_parameter, name)
            if self.shrink is not None or self.redistribute is not None:
                layer.check_resizable()
        self._check_alone()
        self._removed = False
        self._hooks: OrderedDict[int, EvolutionHook] = OrderedDict()
        self._states = SeenStates()
        self._put_hook()
        self._arm_if_due()

    def __getstate__(self) -> dict[str, Any]:
        state = {n: value for n, value in self.__dict__.items() if n not in ("_hook", "_hooks")}
        return {**state, "captured": self._captures.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the hook on the optimizer that was copied or pickled together with the evolution."""
        captured = state.pop("captured")
        self.__dict__.update(state)
        self._hooks = OrderedDict()
        self._states = SeenStates()
        self._put_hook()
        if self._removed:
            self._hook.remove()
            attended.ended(self, self.layers)
            return
        self._arm_if_due()
        self._captures.restore(read_passes(captured, self._layers))

    def step(self) -> EvolutionRecord:
        """Evolve now.

        Returns:
            A record of what was done, which is also appended to `history`.

        Raises:
            TypeError, ValueError: as for the constructor, or a rule asks for what is not there
                (a gradient, momentum, a captured step: see `arm`); nothing is then changed.
            RuntimeError: ranks that train together do not hold one topology, or the evolution
                failed on another rank.
        """
        fraction = as_float(self.fraction(self.steps), "fraction")
        if not 0 <= fraction <= 1:
            raise ValueError(
                f"`fraction` must give numbers in [0, 1], got {fraction} after step {self.steps}"
            )
        try:
            plans = self._plan(fraction)
        finally:
            self._captures.release()
        self._ranks.all_succeed(lambda: [plan.rehearse() for plan in plans])
        changes = {plan.name: plan.positions() for plan in plans} if self._hooks else {}
        layers = apply_all(plans)
        self._states.see(self._optimizer, self._layers)
        self._ranks.check_same(self._layers)
        record = EvolutionRecord(self.steps, fraction, layers)
        self.history.append(record)
        for hook in tuple(self._hooks.values()):
            hook(record, changes)
        return record

    def register_hook(self, hook: EvolutionHook) -> RemovableHandle:
        """Call a function after each evolution, with what has gone and come.

        Args:
            hook: called as `hook(record, changes)`, where `record` is the new entry of `history`
                and `changes` maps the name of each layer to a `tts.evolution.LayerChange`. All
                layers have changed then; an error of the hook comes out of the optimizer's step,
                or of `step`.

        Returns:
            A handle whose `remove()` takes the hook off. Copies, pickles and saved states of the
            evolution have no hooks.

        Cost: O(nnz) time and memory for the layer at work, and 8 bytes for each connection that
        goes or comes.

        Example:
            >>> from torch_truly_sparse import TrulySparseLinear
            >>> layer = TrulySparseLinear(20, 30, density=0.1)
            >>> evolution = SparseEvolution(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
            >>> grown = []
            >>> handle = evolution.register_hook(lambda record, changes: grown.append(changes))
            >>> _ = evolution.step()
            >>> grown[0][""].grown.shape
            torch.Size([18])
        """
        if not callable(hook):
            raise TypeError(f"`hook` must be callable, got {type(hook).__name__}")
        handle = RemovableHandle(self._hooks)
        self._hooks[handle.id] = hook
        return handle

    def arm(self) -> None:
        """Capture from now on what growth by gradient reads at the next `step()`.

        With `every=` the evolution calls it by itself. With `every=None` you do:

            evolution.arm()
            loss_fn(model(x), y).backward()
            optimizer.step()
            evolution.step()

        Until `step()` the layers keep the inputs and output gradients of their backward passes, of
        as many of the last optimizer steps as the rule reads. Where the rule reads none, the call
        does nothing.
        """
        if self.regrow.gradient_steps:
            self._captures.arm(self._layers, self.regrow.gradient_steps)

    def remove(self) -> None:
        """Take the hook off the optimizer: the topology stays as it is from now on."""
        self._removed = True
        self._hook.remove()
        self._captures.release()
        attended.ended(self, self.layers)

    def state_dict(self) -> dict[str, Any]:
        """Save what a resumed run needs: the steps seen, the history, the generator's state.

        Returns:
            A dictionary that `torch.load(weights_only=True)` reads. The topologies are in the
            model's state, and momentum and the like in the optimizer's. Without a `generator` of
            its own the evolution draws from torch's default generator, whose state you save
            yourself. With a rule that reads several steps (`MomentumRegrow`) the passes captured so
            far are saved, too.
        """
        return {
            "steps": self.steps,
            "history": pack(self.history),
            "generator": None if self.generator is None else self.generator.get_state(),
            "captured": self._captures.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state.

        The hook is put back where the optimizer has lost it (a deep copy has), unless `remove` was
        called.

        Args:
            state: what `state_dict` returned.

        Raises:
            TypeError, ValueError: entries are missing or hold something else, or only one of the
                two evolutions has a generator of its own; nothing is then changed.
        """
        if not isinstance(state, Mapping):
            raise ValueError(
                f"`state` must be what state_dict returned, got {type(state).__name__}"
            )
        missing = {"steps", "history", "generator", "captured"} - set(state)
        if missing:
            raise ValueError(f"`state` lacks {', '.join(sorted(missing))}")
        if (state["generator"] is None) != (self.generator is None):
            raise ValueError(
                "`state` was saved "
                + ("without" if state["generator"] is None else "with")
                + " a generator: make this SparseEvolution in the same way"
            )
        steps = as_int(state["steps"], "state['steps']", least=0)
        history = unpack(state["history"])
        captured = read_passes(state["captured"], self._layers)
        if self.generator is not None:
            _set_state(self.generator, state["generator"])
        self.steps, self.history = steps, history  # from here on nothing can fail
        if self._removed:
            return
        self._hook.remove()
        self._put_hook()
        self._captures.release()
        self._arm_if_due()
        self._captures.restore(captured)

    @property
    def layers(self) -> tuple[SparseLayer, ...]:
        """The layers that evolve, in the order of the model."""
        return tuple(self._layers.values())

    @property
    def named_layers(self) -> dict[str, SparseLayer]:
        """The layers that evolve, by their names in the model."""
        return dict(self._layers)

    def follows(self, optimizer: Optimizer) -> bool:
        """Whether the hook is on this optimizer."""
        return self._optimizer is optimizer

    def _put_hook(self) -> None:
        self.has_stepped = False
        self._states.see(self._optimizer, self._layers)
        self._hook = self._optimizer.register_step_post_hook(self._after_step)
        attended.started(self, self.layers)

    @not_compiled
    def _after_step(self, *_: Any) -> None:
        self.has_stepped = True
        self._states.check(self._optimizer, self._layers)
        if _skipped(self._optimizer):
            self._captures.drop_step()
            return
        self.steps += 1
        self._captures.end_step()
        if self.steps == _next_evolution(self.steps - 1, self.every, self.stop):
            self.step()
        self._arm_if_due()

    def _arm_if_due(self) -> None:
        upcoming = _next_evolution(self.steps, self.every, self.stop)
        if upcoming is not None and upcoming - self.steps <= self.regrow.gradient_steps:
            self.arm()

    def _plan(self, fraction: float) -> list[LayerStep]:
        """Plan every layer; nothing is changed yet."""
        if type(self._ranks) is Alone:
            check_alone(self._layers)  # the group may be younger than the evolution
        self._ranks.check_same(self._layers)
        generator = self._ranks.share_generator(self.generator)
        views = [
            self._view(name, layer)
            for name, layer in self._layers.items()
            if layer.weight_parameter.requires_grad
        ]
        if self.regrow.gradient_steps:
            self._ranks.check_ready({view.name: view.has_captured for view in views})
        pruned = [
            plan_prune(view, self.prune, self.shrink, fraction, generator, self._ranks)
            for view in views
        ]
        counts = [each.exchanged for each in pruned]
        if self.redistribute is not None:
            shares = [
                as_scale(self.redistribute.importance(view), f"importance of layer {view.name!r}")
                for view in views
            ]
            counts = share_out(sum(counts), shares, [each.room for each in pruned])
        keep = sum(view.nnz for view in views) <= KEEP_UP_TO
        return [
            plan_regrow(each, count, self.regrow, generator, self._ranks, keep=keep)
            for each, count in zip(pruned, counts, strict=True)
        ]

    def _view(self, name: str, layer: SparseLayer) -> LayerView:
        return LayerView(
            name,
            layer,
            self._optimizer,
            step=self.steps,
            evolutions=len(self.history),
            is_output=layer is self._output,
            captured=self._captures.of(name),
            reduce=self.reduce,
        )

    def _check_alone(self) -> None:
        for other in attended.live:
            if other.follows(self._optimizer):
                shared = [
                    name
                    for name, layer in self._layers.items()
                    if any(layer is theirs for theirs in other.layers)
                ]
                if shared:
                    raise ValueError(
                        f"layer {shared[0]!r} already evolves with this optimizer and would "
                        "evolve twice; call `remove()` on the earlier SparseEvolution first"
                    )


def _set_state(generator: torch.Generator, state: Any) -> None:
    try:
        generator.set_state(state)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"`state` holds no state of a generator: {error}") from None


def _next_evolution(after: int, every: int | None, stop: int | None) -> int | None:
    """Give the first step later than `after` at which the network evolves, or None.

    Args:
        after: an optimizer step, counted from 1; 0 is before the first.
        every: the network evolves at steps every + 1, 2 every + 1, ...; None for never.
        stop: the last step at which the network may evolve, or None for no end.

    Example:
        >>> [_next_evolution(after, every=3, stop=8) for after in (0, 3, 4, 6, 7)]
        [4, 4, 7, 7, None]
    """
    if every is None:
        return None
    intervals = max(-(-after // every), 1)
    step = intervals * every + 1
    return step if stop is None or step <= stop else None


def _skipped(optimizer: Optimizer) -> bool:
    """Say whether a GradScaler told a fused optimizer to skip the step that it has just made.

    An optimizer that is not fused is not called at all for a skipped step, nor are its hooks.
    """
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)
