"""Layers: truly sparse, and masked dense to compare with."""

from .init import HeUniform, Initializer, LinearUniform, Normal, XavierUniform, Zeros
from .masked_linear import MaskedLinear
from .sparse_layer import SparseLayer
from .truly_sparse_linear import TrulySparseLinear

__all__ = [
    "HeUniform",
    "Initializer",
    "LinearUniform",
    "MaskedLinear",
    "Normal",
    "SparseLayer",
    "TrulySparseLinear",
    "XavierUniform",
    "Zeros",
]
