"""Truly sparse layers for PyTorch, trained on the CPU with evolving topologies."""

from importlib.metadata import version as _version

from . import convert, evolution, functional, interop, nn, topology
from ._library import active_isa
from .convert import densify, load_dense_state_dict, sparsify, summary
from .evolution import (
    EvolutionRecord,
    MagnitudePrune,
    PruneRule,
    RandomRegrow,
    RegrowRule,
    SignSplitMagnitude,
    SparseEvolution,
)
from .nn import MaskedLinear, SparseLayer, TrulySparseLinear

__version__ = _version("torch_truly_sparse")

__all__ = [
    "EvolutionRecord",
    "MagnitudePrune",
    "MaskedLinear",
    "PruneRule",
    "RandomRegrow",
    "RegrowRule",
    "SignSplitMagnitude",
    "SparseEvolution",
    "SparseLayer",
    "TrulySparseLinear",
    "active_isa",
    "convert",
    "densify",
    "evolution",
    "functional",
    "interop",
    "load_dense_state_dict",
    "nn",
    "sparsify",
    "summary",
    "topology",
]
