"""Layers: truly sparse, and masked dense to compare with."""

from .all_relu import AllReLU
from .init import HeUniform, Initializer, LinearUniform, Normal, XavierUniform, Zeros
from .masked_linear import MaskedLinear
from .sparse_layer import SparseLayer
from .truly_sparse_linear import TrulySparseLinear

__all__ = [
    "AllReLU",
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
