"""Whole models: from dense to truly sparse and back, and what that saves."""

from .dense_checkpoint import IncompatibleKeys, load_dense_state_dict
from .densify import densify
from .pack import pack, unpack
from .sparsify import sparsify
from .summary import LayerSummary, ModelSummary, summary

__all__ = [
    "IncompatibleKeys",
    "LayerSummary",
    "ModelSummary",
    "densify",
    "load_dense_state_dict",
    "pack",
    "sparsify",
    "summary",
    "unpack",
]
