"""The rules that can be asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .gradient_regrow import CandidateGradientRegrow, GradientRegrow, MomentumRegrow
from .prune import (
    MagnitudeGradientPrune,
    MagnitudePrune,
    PruneRule,
    RandomPrune,
    SignSplitMagnitude,
)
from .redistribution import MomentumRedistribution, Redistribution
from .regrow import RandomRegrow, RegrowRule
from .shrink import ImportancePrune, ShrinkRule

_PRUNE: dict[str, PruneRule] = {
    "sign_split": SignSplitMagnitude(),
    "magnitude": MagnitudePrune(),
    "magnitude_gradient": MagnitudeGradientPrune(),
    "random": RandomPrune(),
}
_REGROW: dict[str, RegrowRule] = {
    "random": RandomRegrow(),
    "gradient": GradientRegrow(),
    "candidate_gradient": CandidateGradientRegrow(),
    "momentum": MomentumRegrow(),
}
_SHRINK: dict[str, ShrinkRule] = {"importance": ImportancePrune()}
_REDISTRIBUTE: dict[str, Redistribution] = {"momentum": MomentumRedistribution()}


def prune_rule(given: str | PruneRule) -> PruneRule:
    """Look up a prune rule by name; an object passes through.

    Raises:
        ValueError: the name is unknown.
        TypeError: it is neither a name nor a rule.
    """
    rule: PruneRule = _rule(given, PruneRule, "prune", _PRUNE)
    return rule


def regrow_rule(given: str | RegrowRule) -> RegrowRule:
    """Look up a regrow rule, as `prune_rule` does."""
    rule: RegrowRule = _rule(given, RegrowRule, "regrow", _REGROW)
    return rule


def shrink_rule(given: str | ShrinkRule | None) -> ShrinkRule | None:
    """Look up a shrink rule, as `prune_rule` does; None is none."""
    if given is None:
        return None
    rule: ShrinkRule = _rule(given, ShrinkRule, "shrink", _SHRINK)
    return rule


def redistribution(given: str | Redistribution | None) -> Redistribution | None:
    """Look up a redistribution, as `prune_rule` does; None is none."""
    if given is None:
        return None
    rule: Redistribution = _rule(given, Redistribution, "redistribute", _REDISTRIBUTE)
    return rule


def _rule(given: Any, kind: type, name: str, known: Mapping[str, Any]) -> Any:
    if isinstance(given, str):
        if given not in known:
            raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {given!r}")
        return known[given]
    if not isinstance(given, kind):
        hint = f"; write {given.__name__}()" if isinstance(given, type) else ""
        raise TypeError(f"`{name}` must be a {kind.__name__} or its name, got {given!r}{hint}")
    return given
