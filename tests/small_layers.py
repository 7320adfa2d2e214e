"""Small layers with known connections."""

from __future__ import annotations

import torch
from oracles import random_mask
from torch import Tensor, nn

from torch_truly_sparse import TrulySparseLinear


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_mask(mask: Tensor, dtype: torch.dtype = torch.float32, **options) -> TrulySparseLinear:
    """A layer with these connections, and weights and bias that are not 0."""
    out_features, in_features = mask.shape
    layer = TrulySparseLinear(
        in_features, out_features, nnz=int(mask.sum()), dtype=dtype, **options
    )
    layer.indices = mask.nonzero().t()
    nn.init.normal_(layer.values)
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    return layer


def small(**options) -> TrulySparseLinear:
    return of_mask(random_mask(6, 9, 20), **options)
