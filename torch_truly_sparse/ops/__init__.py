"""The operators: a typed wrapper, a shape-only (fake) kernel and a gradient for each.

`spmm`, `spmm_transposed`, `sddmm` and `column_sum` of their own modules are the bare operators;
those of `differentiable` carry gradients of any order.
"""

from .column_sum import column_sum
from .compress import compress
from .empty_above import empty_above
from .merge import merge
from .move import move
from .positions import empty_positions, from_positions, to_positions
from .sample import sample
from .sddmm import sddmm
from .select import keep_largest, mark_smallest, mark_weakest
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
    "empty_above",
    "empty_positions",
    "from_positions",
    "keep_largest",
    "mark_smallest",
    "mark_weakest",
    "merge",
    "move",
    "sample",
    "sddmm",
    "spmm",
    "spmm_backward",
    "spmm_transposed",
    "to_positions",
    "transpose",
]
