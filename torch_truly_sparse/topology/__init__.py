"""Topologies: which units are connected.

A topology is a tensor `indices` (2, nnz): row 0 holds output units, row 1 input units, sorted by
output unit, then input unit, and unique.
"""

from .coordinates import check_indices, from_positions, index_dtype, to_positions
from .counts import as_int, count_connections
from .random import draw_seed, random_empty_positions, random_indices

__all__ = [
    "as_int",
    "check_indices",
    "count_connections",
    "draw_seed",
    "from_positions",
    "index_dtype",
    "random_empty_positions",
    "random_indices",
    "to_positions",
]
