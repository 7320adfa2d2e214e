"""Truly sparse layers for PyTorch, trained on the CPU with evolving topologies."""

from importlib.metadata import version as _version

from . import (
    checkpoint,
    convert,
    distributed,
    evolution,
    functional,
    interop,
    nn,
    optim,
    rules,
    schedules,
    topology,
)
from ._library import active_isa
from .convert import densify, pack, sparsify, summary, unpack
from .evolution.methods import MEST, SET, RigL, SparseMomentum
from .evolution.sparse_evolution import SparseEvolution
from .nn import MaskedLinear, TrulySparseLinear
from .topology import Topology

__version__ = _version("torch_truly_sparse")

__all__ = [
    "MEST",
    "SET",
    "MaskedLinear",
    "RigL",
    "SparseEvolution",
    "SparseMomentum",
    "Topology",
    "TrulySparseLinear",
    "active_isa",
    "checkpoint",
    "convert",
    "densify",
    "distributed",
    "evolution",
    "functional",
    "interop",
    "nn",
    "optim",
    "pack",
    "rules",
    "schedules",
    "sparsify",
    "summary",
    "topology",
    "unpack",
]
