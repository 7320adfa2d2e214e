"""Topologies: which units are connected, and how connections are shared out among layers."""

from .counts import connections_at, count_connections
from .distributions import Distribution, ErdosRenyi, FixedFanIn, Uniform, distribution
from .random import draw_seed, random_empty_positions
from .sizes import Shape, index_dtype
from .topology import Topology, TopologyChange

__all__ = [
    "Distribution",
    "ErdosRenyi",
    "FixedFanIn",
    "Shape",
    "Topology",
    "TopologyChange",
    "Uniform",
    "connections_at",
    "count_connections",
    "distribution",
    "draw_seed",
    "index_dtype",
    "random_empty_positions",
]
