"""Sum over samples: the gradient of the bias."""

from __future__ import annotations

from torch import Tensor

from .._library import operators
from .registration import fake, plain_torch


def column_sum(grad_output: Tensor) -> Tensor:
    """Sum over samples: `grad_bias = grad_output.sum(0)`, in the order of the samples.

    Unlike `Tensor.sum`, it gives the same bits for any number of threads.

    Args:
        grad_output: (batch, out_features), float32 or float64.

    Returns:
        (out_features,), new memory. Not differentiable: see `ops.differentiable`.

    Raises:
        ValueError: the shape or the dtype does not fit.

    Cost: O(batch out_features).
    """
    output: Tensor = operators.column_sum(grad_output)
    return output


@fake("column_sum")
def _column_sum_fake(grad_output: Tensor) -> Tensor:
    return grad_output.new_empty((grad_output.shape[1],))


@plain_torch("column_sum")
def column_sum_reference(grad_output: Tensor) -> Tensor:
    """Compute `column_sum` in plain torch, on any device."""
    return grad_output.sum(0)
