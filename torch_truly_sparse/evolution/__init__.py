"""Evolution of a topology during training: prune the weakest connections, regrow as many."""

from .optimizer_state import register_optimizer
from .prune import MagnitudePrune, PruneRule, SignSplitMagnitude
from .record import EvolutionRecord, LayerRecord
from .regrow import RandomRegrow, RegrowRule
from .schedules import Constant, Schedule
from .sparse_evolution import SparseEvolution
from .topology_change import TopologyChange

__all__ = [
    "Constant",
    "EvolutionRecord",
    "LayerRecord",
    "MagnitudePrune",
    "PruneRule",
    "RandomRegrow",
    "RegrowRule",
    "Schedule",
    "SignSplitMagnitude",
    "SparseEvolution",
    "TopologyChange",
    "register_optimizer",
]
