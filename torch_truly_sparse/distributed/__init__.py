"""Training on several processes: one topology on all of them, or a merge of many."""

from .merge import merge_topologies
from .merge_ranks import merge_ranks
from .prepare import prepare, release

__all__ = ["merge_ranks", "merge_topologies", "prepare", "release"]
