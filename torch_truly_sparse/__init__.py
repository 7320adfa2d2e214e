"""Truly sparse layers for PyTorch, trained on the CPU with evolving topologies."""

from importlib.metadata import version as _version

from . import checkpoint, convert, distributed, evolution, functional, interop, nn, topology
from ._library import active_isa
from .convert import densify, load_dense_state_dict, sparsify, summary
from .evolution import (
    ByEpoch,
    CandidateGradientRegrow,
    Cosine,
    EvolutionRecord,
    GradientRegrow,
    GradualMagnitude,
    ImportancePrune,
    Linear,
    MagnitudeGradientPrune,
    MagnitudePrune,
    MomentumRedistribution,
    MomentumRegrow,
    PruneRule,
    RandomPrune,
    RandomRegrow,
    RegrowRule,
    SignSplitMagnitude,
    SparseEvolution,
    mest,
    rigl,
    set_evolution,
    sparse_momentum,
)
from .nn import AllReLU, AveragedModel, MaskedLinear, SparseLayer, TrulySparseLinear

__version__ = _version("torch_truly_sparse")

__all__ = [
    "AllReLU",
    "AveragedModel",
    "ByEpoch",
    "CandidateGradientRegrow",
    "Cosine",
    "EvolutionRecord",
    "GradientRegrow",
    "GradualMagnitude",
    "ImportancePrune",
    "Linear",
    "MagnitudeGradientPrune",
    "MagnitudePrune",
    "MaskedLinear",
    "MomentumRedistribution",
    "MomentumRegrow",
    "PruneRule",
    "RandomPrune",
    "RandomRegrow",
    "RegrowRule",
    "SignSplitMagnitude",
    "SparseEvolution",
    "SparseLayer",
    "TrulySparseLinear",
    "active_isa",
    "checkpoint",
    "convert",
    "densify",
    "distributed",
    "evolution",
    "functional",
    "interop",
    "load_dense_state_dict",
    "mest",
    "nn",
    "rigl",
    "set_evolution",
    "sparse_momentum",
    "sparsify",
    "summary",
    "topology",
]
