"""The operators: for each a typed wrapper, a shape-only (fake) form and a plain-torch form.

`autograd.apply` makes the products differentiable, by the rules of `gradients`. This package is
internal: users reach the operators through layers, `torch_truly_sparse.functional` and
`torch_truly_sparse.Topology`.
"""

from . import flops as _flops  # noqa: F401  (registers what the products cost)
from .column_sum import column_sum
from .compress import compress, compress_again
from .csr import Csr, CsrParts, TransposedOrder
from .empty_above import empty_above
from .merge import merge
from .move import move
from .positions import empty_positions, from_positions, to_positions
from .sample import sample
from .sddmm import sddmm
from .select import keep_largest, mark_smallest, mark_weakest
from .spmm import spmm
from .spmm_backward import LayerGradients, spmm_backward
from .spmm_backward_update import OtherGradients, spmm_backward_adamw, spmm_backward_sgd
from .spmm_packed import spmm_packed
from .spmm_transposed import SCATTER_BATCH, spmm_transposed
from .transpose import transpose
from .updated_weights import hand_over, owner_of

__all__ = [
    "SCATTER_BATCH",
    "Csr",
    "CsrParts",
    "LayerGradients",
    "OtherGradients",
    "TransposedOrder",
    "column_sum",
    "compress",
    "compress_again",
    "empty_above",
    "empty_positions",
    "from_positions",
    "hand_over",
    "keep_largest",
    "mark_smallest",
    "mark_weakest",
    "merge",
    "move",
    "owner_of",
    "sample",
    "sddmm",
    "spmm",
    "spmm_backward",
    "spmm_backward_adamw",
    "spmm_backward_sgd",
    "spmm_packed",
    "spmm_transposed",
    "to_positions",
    "transpose",
]
