"""Layers: truly sparse, and masked dense to compare with."""

from .all_relu import AllReLU
from .averaged_model import AveragedModel
from .init import HeUniform, Initializer, LinearUniform, Normal, XavierUniform, Zeros
from .masked_linear import MaskedLinear
from .packed_linear import PackedLinear
from .saved_state import StateDictError, check_state_dict, load_all_or_nothing
from .sparse_layer import SparseLayer
from .truly_sparse_linear import TrulySparseLinear

__all__ = [
    "AllReLU",
    "AveragedModel",
    "HeUniform",
    "Initializer",
    "LinearUniform",
    "MaskedLinear",
    "Normal",
    "PackedLinear",
    "SparseLayer",
    "StateDictError",
    "TrulySparseLinear",
    "XavierUniform",
    "Zeros",
    "check_state_dict",
    "load_all_or_nothing",
]
