"""Sum over samples: the gradient of the bias."""

from __future__ import annotations

from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch, sum_dtype


def column_sum(grad_output: Tensor) -> Tensor:
    """Sum a gradient over the samples: `grad_bias = grad_output.sum(0)`.

    Unlike `Tensor.sum`, this operator adds the samples in their order, so that the result has the
    same bits for any number of threads.

    Args:
        grad_output: (batch, out_features), float32, float64, bfloat16 or float16.

    Returns:
        (out_features,), new memory: float64 for float64, float32 otherwise. The operator itself is
        not differentiable; `ops.autograd.apply` makes it so.

    Raises:
        ValueError: the shape or the dtype does not fit.

    Cost: O(batch out_features).
    """
    output: Tensor = operators.column_sum(grad_output)
    return output


@fake("column_sum")
def _column_sum_fake(grad_output: Tensor) -> Tensor:
    return grad_output.new_empty((grad_output.shape[1],), dtype=sum_dtype(grad_output))


@plain_torch("column_sum")
def column_sum_reference(grad_output: Tensor) -> Tensor:
    """Compute `column_sum` in plain torch, on any device."""
    return grad_output.sum(0, dtype=sum_dtype(grad_output))
