"""The stateless form of a truly sparse layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._arguments import as_int
from .ops import differentiable as ops
from .topology import check_indices

HALVES = (torch.bfloat16, torch.float16)
"""The dtypes of activations whose weights stay float32."""


def sparse_linear(
    input: Tensor,
    indices: Tensor,
    values: Tensor,
    bias: Tensor | None = None,
    *,
    out_features: int,
) -> Tensor:
    """Apply `output = input @ W.T + bias`, where W is given by its nonzeros.

    Differentiable, to any order, in `input`, `values` and `bias`.

    Args:
        input: (*, in_features), float32, float64, bfloat16 or float16, any number of leading
            dimensions.
        indices: (2, nnz) int32 or int64, sorted by output unit, then input unit, and unique.
        values: (nnz,), float64 with a float64 input, float32 with any other; sums are made in it.
        bias: (out_features,) of the dtype of `values`, or None.
        out_features: number of output units.

    Returns:
        (*, out_features) of the dtype of `input`, new memory. Within `torch.autocast`, of the
        dtype that it asks for, as from `torch.nn.functional.linear`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape does not fit, or the indices are out of range, unsorted or not unique.

    Cost: O(nnz batch) time. Each call checks the indices in O(nnz) and derives what it needs
    from them; a `TrulySparseLinear` does so once.

    Example:
        >>> import torch
        >>> indices = torch.tensor([[0, 2], [1, 0]])
        >>> sparse_linear(torch.ones(1, 2), indices, torch.tensor([3.0, 4.0]), out_features=3)
        tensor([[3., 0., 4.]])
    """
    if type(out_features) is not int:  # compiled code knows no NumPy integers
        out_features = as_int(out_features, "out_features")
    if out_features < 0:
        raise ValueError(f"`out_features` must not be negative, got {out_features}")
    if not isinstance(input, Tensor):
        raise TypeError(f"`input` must be a torch.Tensor, got {type(input).__name__}")
    _check_not_nested(input)
    if input.dim() == 0:
        raise ValueError("`input` must have a last dimension of in_features, got a scalar")
    input = autocast(input)
    in_features = input.shape[-1]
    indices, crow_indices = check_indices(indices, out_features, in_features)
    check_operands(input, values, bias, in_features, out_features, indices.shape[1])
    if indices.device != values.device:
        raise ValueError(
            f"`indices` and `values` must be on one device, got {indices.device} and "
            f"{values.device}"
        )
    orders = ops.Orders(crow_indices, indices[1], in_features, None)
    return apply(input, values, bias, orders)


def autocast(input: Tensor) -> Tensor:
    """Convert activations as `torch.autocast` does for `nn.Linear`; weights stay as they are."""
    if not torch._C._is_any_autocast_enabled() or not isinstance(input, Tensor):
        return input  # first, for every call of eager training passes here
    kind = input.device.type
    if input.is_meta or not torch.is_autocast_enabled(kind):
        return input
    if not input.is_floating_point() or input.dtype == torch.float64:
        return input
    return input.to(torch.get_autocast_dtype(kind))


def check_operands(
    input: Tensor,
    values: Tensor,
    bias: Tensor | None,
    in_features: int,
    out_features: int,
    nnz: int,
) -> None:
    """Raise the errors that `sparse_linear` documents, for everything but the indices."""
    if not isinstance(input, Tensor):
        raise TypeError(f"`input` must be a torch.Tensor, got {type(input).__name__}")
    _check_not_nested(input)
    if input.dim() == 0 or input.shape[-1] != in_features:
        got = "a scalar" if input.dim() == 0 else f"{input.shape[-1]}"
        raise ValueError(f"`input` must have {in_features} features (in_features), got {got}")
    for name, operand in (("values", values), ("bias", bias)):
        if not isinstance(operand, Tensor) and (name == "values" or operand is not None):
            raise TypeError(f"`{name}` must be a torch.Tensor, got {type(operand).__name__}")
    if values.shape != (nnz,):
        raise ValueError(
            f"`values` must have shape ({nnz},), one for each column of `indices`, "
            f"got {tuple(values.shape)}"
        )
    if bias is not None and bias.shape != (out_features,):
        raise ValueError(
            f"`bias` must have shape ({out_features},) (out_features), got {tuple(bias.shape)}"
        )
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"`values` must be float32 or float64, got {values.dtype}: keep the layer in float32; "
            "its input may be bfloat16 or float16"
        )
    if input.device != values.device or (bias is not None and bias.device != values.device):
        raise ValueError(
            f"`input`, `values` and `bias` must be on one device, got {input.device}, "
            f"{values.device} and {None if bias is None else bias.device}"
        )
    for name, operand in (("input", input), ("values", values), ("bias", bias)):
        if operand is not None and operand.layout != torch.strided:
            raise TypeError(f"`{name}` must be a strided tensor, got layout {operand.layout}")
    weights = torch.float32 if input.dtype in HALVES else input.dtype
    if values.dtype != weights or (bias is not None and bias.dtype != weights):
        raise TypeError(
            f"`input`, `values` and `bias` must share one dtype, got {input.dtype}, {values.dtype} "
            f"and {None if bias is None else bias.dtype}: convert the input with "
            f"`input.to({values.dtype})` or the layer with `layer.to({weights})` (a bfloat16 or "
            "float16 input takes float32 weights)"
        )


def _check_not_nested(input: Tensor) -> None:
    """Raise a TypeError for what has no one shape."""
    if input.is_nested:
        raise TypeError(
            "`input` must not be a nested tensor: give `input.values()` of one of layout "
            "torch.jagged and put the output back with "
            "`torch.nested.nested_tensor_from_jagged(output, input.offsets())`, or pad it"
        )


def apply(input: Tensor, values: Tensor, bias: Tensor | None, orders: ops.Orders) -> Tensor:
    """Multiply checked operands, with any number of leading dimensions."""
    if input.dim() == 2:
        return ops.spmm(input, values, bias, orders)
    leading = input.shape[:-1]
    rows = math.prod(leading)  # `leading.numel()` would fix a dynamic size in an exported program
    output = ops.spmm(input.reshape(rows, input.shape[-1]), values, bias, orders)
    return output.reshape(*leading, output.shape[-1])
