"""Topologies: which units are connected, and how connections are shared out among layers."""

from .counts import connections_at, count_connections
from .distributions import Distribution, ErdosRenyi, FixedFanIn, Uniform, distribution
from .random import draw_seed, random_empty_positions
from .seal import SEAL_BITS, check_seal, is_seal, seal_of, sealed_shape
from .sizes import Shape, index_dtype
from .topology import Topology, TopologyChange

__all__ = [
    "SEAL_BITS",
    "Distribution",
    "ErdosRenyi",
    "FixedFanIn",
    "Shape",
    "Topology",
    "TopologyChange",
    "Uniform",
    "check_seal",
    "connections_at",
    "count_connections",
    "distribution",
    "draw_seed",
    "index_dtype",
    "is_seal",
    "random_empty_positions",
    "seal_of",
    "sealed_shape",
]
