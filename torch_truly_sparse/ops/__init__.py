"""The operators: a typed wrapper, a shape-only (fake) kernel and a gradient for each.

`spmm`, `spmm_transposed`, `sddmm` and `column_sum` of their own modules are the bare operators;
those of `differentiable` carry gradients of any order.
"""

from .column_sum import column_sum
from .compress import compress
from .sample import sample
from .sddmm import sddmm
from .spmm import spmm
from .spmm_backward import LayerGradients, spmm_backward
from .spmm_transposed import SCATTER_BATCH, spmm_transposed
from .transpose import TransposedOrder, transpose

__all__ = [
    "SCATTER_BATCH",
    "LayerGradients",
    "TransposedOrder",
    "column_sum",
    "compress",
    "sample",
    "sddmm",
    "spmm",
    "spmm_backward",
    "spmm_transposed",
    "transpose",
]
