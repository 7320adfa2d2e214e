"""The stateless form of a truly sparse layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._torch_internals import any_autocast_enabled
from .ops import Csr, autograd, gradients
from .topology import Topology

HALVES = (torch.bfloat16, torch.float16)
"""The dtypes of activations whose weights stay float32."""


def sparse_linear(
    input: Tensor, topology: Topology, values: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Apply `output = input @ W.T + bias`, where W is given by its nonzeros.

    Differentiable, to any order, in `input`, `values` and `bias`.

    Args:
        input: (*, in_features), float32, float64, bfloat16 or float16, any number of leading
            dimensions.
        topology: where W (out_features, in_features) has its nonzeros.
        values: (nnz,) in the order of the topology, float64 with a float64 input, float32 with any
            other; sums are computed in the dtype of `values`.
        bias: (out_features,) of the dtype of `values`, or None.

    Returns:
        (*, out_features) of the dtype of `input`, new memory. Within `torch.autocast` the dtype is
        that of the autocast, as with `torch.nn.functional.linear`.

    Raises:
        TypeError: a dtype does not fit.
        ValueError: a shape or a device does not fit, or the indices of the topology were changed
            in place since the topology was made.

    Cost: O((nnz + in_features + out_features) batch) time. The topology derives its row pointers at
    the first call, and keeps them.

    Example:
        >>> import torch
        >>> topology = Topology.from_indices(torch.tensor([[0, 2], [1, 0]]), (3, 2))
        >>> sparse_linear(torch.ones(1, 2), topology, torch.tensor([3.0, 4.0]))
        tensor([[3., 0., 4.]])
    """
    if not isinstance(topology, Topology):
        raise TypeError(
            f"`topology` must be a Topology, got {type(topology).__name__}: make one with "
            "`Topology.from_indices(indices, (out_features, in_features))`"
        )
    input = autocast(input)
    indices = topology.indices  # raises if they were changed in place
    check_operands(input, values, bias, topology.shape, indices.shape[1])
    if indices.device != values.device:
        raise ValueError(
            f"`topology` and `values` must be on one device, got {indices.device} and "
            f"{values.device}"
        )
    return multiply(input, values, bias, topology)


def autocast(input: Tensor) -> Tensor:
    """Convert activations as `torch.autocast` does for `nn.Linear`; weights are not converted."""
    if not any_autocast_enabled() or not isinstance(input, Tensor):
        return input  # the cheap test comes first: every eager call passes here
    kind = input.device.type
    if input.is_meta or not torch.is_autocast_enabled(kind):
        return input
    if not input.is_floating_point() or input.dtype == torch.float64:
        return input
    return input.to(torch.get_autocast_dtype(kind))


def check_operands(
    input: Tensor, values: Tensor, bias: Tensor | None, shape: tuple[int, int], nnz: int
) -> None:
    """Raise the errors that `sparse_linear` documents, for everything but the topology."""
    out_features, in_features = shape
    # Every call of a layer passes here. One condition of few steps says whether all operands fit;
    # only where they do not are they examined again, to name the one that does not fit.
    if not (
        isinstance(input, Tensor)
        and isinstance(values, Tensor)
        and not input.is_nested
        and input.dim() > 0
        and input.shape[-1] == in_features
        and values.shape == (nnz,)
        and input.layout == values.layout == torch.strided
        and _share_dtype(input.dtype, values.dtype)
        and input.device == values.device
        and (
            bias is None
            or (
                isinstance(bias, Tensor)
                and bias.shape == (out_features,)
                and bias.layout == torch.strided
                and bias.dtype == values.dtype
                and bias.device == values.device
            )
        )
    ):
        _name_misfit(input, values, bias, in_features, out_features, nnz)


def _share_dtype(input: torch.dtype, values: torch.dtype) -> bool:
    """Return whether weights of dtype `values` can be applied to activations of dtype `input`."""
    if values == torch.float32:
        return input == torch.float32 or input in HALVES
    return input == values == torch.float64


def _name_misfit(
    input: Tensor,
    values: Tensor,
    bias: Tensor | None,
    in_features: int,
    out_features: int,
    nnz: int,
) -> None:
    """Raise the error of the first operand that does not fit."""
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
            f"`values` must have shape ({nnz},), one for each connection of the topology, "
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
        remedy = "`input.dequantize()`" if input.is_quantized else f"`input.to({values.dtype})`"
        if weights in (torch.float32, torch.float64):
            remedy += f" or the layer with `layer.to({weights})`"
        raise TypeError(
            f"`input`, `values` and `bias` must share one dtype, got {input.dtype}, {values.dtype} "
            f"and {None if bias is None else bias.dtype}: convert the input with {remedy} (a "
            "bfloat16 or float16 input takes float32 weights)"
        )


def _check_not_nested(input: Tensor) -> None:
    """Raise a TypeError for a nested tensor, whose samples differ in shape."""
    if input.is_nested:
        raise TypeError(
            "`input` must not be a nested tensor: if its layout is torch.jagged, pass "
            "`input.values()` and make the output nested again with "
            "`torch.nested.nested_tensor_from_jagged(output, input.offsets())`; or pad the input"
        )


def multiply(input: Tensor, values: Tensor, bias: Tensor | None, topology: Csr) -> Tensor:
    """Multiply checked operands, with any number of leading dimensions."""
    if input.dim() == 2:
        return autograd.apply(gradients.LINEAR, topology, input, values, bias)
    leading = input.shape[:-1]
    rows = math.prod(leading)  # `leading.numel()` would fix a dynamic size of an export
    flat = input.reshape(rows, input.shape[-1])
    output = autograd.apply(gradients.LINEAR, topology, flat, values, bias)
    return output.reshape(*leading, output.shape[-1])
