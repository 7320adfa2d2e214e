"""Evolution of a topology during training: prune the weakest connections, regrow as many."""

from .captured_gradient import CapturedGradient
from .gradient_regrow import CandidateGradientRegrow, GradientRegrow, MomentumRegrow
from .layer_view import LayerView
from .optimizer_state import register_optimizer
from .presets import mest, rigl, set_evolution, sparse_momentum
from .prune import (
    MagnitudeGradientPrune,
    MagnitudePrune,
    PruneRule,
    RandomPrune,
    SignSplitMagnitude,
)
from .record import EvolutionRecord, LayerRecord
from .redistribution import MomentumRedistribution, Redistribution
from .regrow import RandomRegrow, RegrowRule
from .resize import resize
from .schedules import ByEpoch, Constant, Cosine, Linear, Schedule
from .shrink import GradualMagnitude, ImportancePrune, ShrinkRule
from .sparse_evolution import SparseEvolution
from .topology_change import TopologyChange

__all__ = [
    "ByEpoch",
    "CandidateGradientRegrow",
    "CapturedGradient",
    "Constant",
    "Cosine",
    "EvolutionRecord",
    "GradientRegrow",
    "GradualMagnitude",
    "ImportancePrune",
    "LayerRecord",
    "LayerView",
    "Linear",
    "MagnitudeGradientPrune",
    "MagnitudePrune",
    "MomentumRedistribution",
    "MomentumRegrow",
    "PruneRule",
    "RandomPrune",
    "RandomRegrow",
    "Redistribution",
    "RegrowRule",
    "Schedule",
    "ShrinkRule",
    "SignSplitMagnitude",
    "SparseEvolution",
    "TopologyChange",
    "mest",
    "register_optimizer",
    "resize",
    "rigl",
    "set_evolution",
    "sparse_momentum",
]
