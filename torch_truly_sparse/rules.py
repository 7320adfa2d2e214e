"""Rules of evolution: which connections go, where new ones appear, how layers share them.

`SparseEvolution` takes the rules by name or as objects. A rule of one's own is a small class under
one of the base classes `PruneRule`, `RegrowRule`, `ShrinkRule`, `Redistribution`, each with one
method to write. What such a class needs is here, too: `LayerView` and `CapturedGradient` are what a
rule sees; `smallest`, `count_to_drop`, `random_empty_positions` and `draw_seed` are what the
shipped rules are made of. A tutorial: docs/evolution_rules.md.

| argument | base class | shipped |
|---|---|---|
| `prune=` | `PruneRule` | `SignSplitMagnitude`, `MagnitudePrune`, `MagnitudeGradientPrune`, \
`RandomPrune` |
| `regrow=` | `RegrowRule` | `RandomRegrow`, `GradientRegrow`, `CandidateGradientRegrow`, \
`CannistraciHebbRegrow`, `MomentumRegrow` |
| `shrink=` | `ShrinkRule` | `ImportancePrune`, `GradualMagnitude` |
| `redistribute=` | `Redistribution` | `MomentumRedistribution` |
"""

from .evolution.gradient import CapturedGradient
from .evolution.layer_view import LayerView
from .evolution.prune import (
    MagnitudeGradientPrune,
    MagnitudePrune,
    PruneRule,
    RandomPrune,
    SignSplitMagnitude,
    count_to_drop,
    smallest,
)
from .evolution.redistribution import MomentumRedistribution, Redistribution
from .evolution.regrow import (
    CandidateGradientRegrow,
    CannistraciHebbRegrow,
    GradientRegrow,
    MomentumRegrow,
    RandomRegrow,
    RegrowRule,
)
from .evolution.shrink import GradualMagnitude, ImportancePrune, ShrinkRule
from .topology import draw_seed, random_empty_positions

__all__ = [
    "CandidateGradientRegrow",
    "CannistraciHebbRegrow",
    "CapturedGradient",
    "GradientRegrow",
    "GradualMagnitude",
    "ImportancePrune",
    "LayerView",
    "MagnitudeGradientPrune",
    "MagnitudePrune",
    "MomentumRedistribution",
    "MomentumRegrow",
    "PruneRule",
    "RandomPrune",
    "RandomRegrow",
    "Redistribution",
    "RegrowRule",
    "ShrinkRule",
    "SignSplitMagnitude",
    "count_to_drop",
    "draw_seed",
    "random_empty_positions",
    "smallest",
]
