"""Topologies: which units are connected.

A topology is a tensor `indices` (2, nnz): row 0 holds output units, row 1 input units, sorted by
output unit, then input unit, and unique.
"""

from .coordinates import check_indices, from_positions, index_dtype, to_positions
from .counts import connections_at, count_connections
from .distributions import Distribution, ErdosRenyi, FixedFanIn, Uniform, distribution
from .fixed_fan_in import random_fixed_fan_in_indices
from .random import draw_seed, random_empty_positions, random_indices

__all__ = [
    "Distribution",
    "ErdosRenyi",
    "FixedFanIn",
    "Uniform",
    "check_indices",
    "connections_at",
    "count_connections",
    "distribution",
    "draw_seed",
    "from_positions",
    "index_dtype",
    "random_empty_positions",
    "random_fixed_fan_in_indices",
    "random_indices",
    "to_positions",
]
