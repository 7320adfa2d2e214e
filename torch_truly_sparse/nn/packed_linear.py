"""A sparse layer packed for inference: few bytes a weight, no training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._arguments import as_int
from ..ops.spmm_packed import spmm_packed
from .packing import PACKED_DTYPES, Packed, pack_matrix, unpack_matrix
from .truly_sparse_linear import TrulySparseLinear


class PackedLinear(nn.Module):
    """A `TrulySparseLinear` for inference, in 6, 4 or 3 bytes a weight.

    `output = input @ W.T + bias`, for any batch size. 16 bits tell the column of a weight, and its
    value is a float32, a bfloat16, or an int8 with a scale for each output unit. There are no
    gradients. `tts.pack` makes one of each sparse layer of a model; `from_sparse` of one layer.

    Args:
        in_features: number of input units, below 2**31.
        out_features: number of output units.
        bias: whether there is a bias (float32).
        dtype: of the values: torch.float32, torch.bfloat16 or torch.int8.

    A layer made by the constructor has no connections; `load_state_dict` gives it those of a saved
    one, whatever their number.

    Attributes:
        row_pointers, codes, values, scales, bias: buffers, as `ops.spmm_packed` reads them;
            `shape` (2,) int64 is out_features, in_features.

    Shape: input (*, in_features), output (*, out_features), float32, bfloat16 or float16.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.

    Example:
        >>> layer = TrulySparseLinear(100, 50, density=0.1)
        >>> packed = PackedLinear.from_sparse(layer, torch.bfloat16)
        >>> packed(torch.randn(3, 100)).shape, packed.values.dtype
        (torch.Size([3, 50]), torch.bfloat16)
    """

    row_pointers: Tensor
    codes: Tensor
    values: Tensor
    scales: Tensor | None
    bias: Tensor | None
    shape: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.in_features = as_int(in_features, "in_features", least=0)
        self.out_features = as_int(out_features, "out_features", least=0)
        if self.in_features >= 2**31:
            raise ValueError(f"`in_features` must stay below 2**31, got {self.in_features}")
        check_packed_dtype(dtype)
        empty = torch.zeros(self.out_features + 1, dtype=torch.int64)
        self.register_buffer("shape", torch.tensor([self.out_features, self.in_features]))
        self.register_buffer("row_pointers", empty)
        self.register_buffer("codes", torch.empty(0, dtype=torch.int16))
        self.register_buffer("values", torch.empty(0, dtype=dtype))
        ones = torch.ones(self.out_features, dtype=torch.float32)
        self.register_buffer("scales", ones if dtype == torch.int8 else None)
        self.register_buffer("bias", torch.zeros_like(ones) if bias else None)

    @classmethod
    @torch.no_grad()
    def from_sparse(
        cls, layer: TrulySparseLinear, dtype: torch.dtype = torch.float32
    ) -> PackedLinear:
        """Pack a layer, which is left as it is.

        Args:
            layer: of float32 weights.
            dtype: of the packed values. With x the input, an output differs from that of the layer,
                besides rounding of sums, by at most 2**-8 of the sum of |w x| in bfloat16, and by
                at most scale / 2 of the sum of |x| over the unit's connections in int8, where scale
                is the unit's largest |w| / 127.

        Raises:
            TypeError: `layer` is no TrulySparseLinear of float32 weights, or `dtype` another one.
            ValueError: the indices of the layer have been changed and are no valid topology, or the
                layer is on the meta device.

        Cost: O(nnz) time and memory.
        """
        if not isinstance(layer, TrulySparseLinear):
            raise TypeError(f"`layer` must be a TrulySparseLinear, got {type(layer).__name__}")
        if layer.values.dtype != torch.float32:
            raise TypeError(
                f"`layer` must have float32 weights, got {layer.values.dtype}; layer.float() "
                "converts it"
            )
        if layer.values.is_meta:
            raise ValueError("`layer` is on the meta device and has no weights to pack")
        has_bias = layer.bias is not None
        packed = cls(layer.in_features, layer.out_features, has_bias, dtype=dtype)
        matrix = pack_matrix(layer.topology, layer.values.detach(), dtype)
        for name, part in matrix._asdict().items():
            packed._buffers[name] = part
        packed._buffers["shape"] = packed.shape.to(layer.values.device)
        if layer.bias is not None:
            packed._buffers["bias"] = layer.bias.detach().clone()
        return packed.train(layer.training)

    @torch.no_grad()
    def to_sparse(self) -> TrulySparseLinear:
        """Return a trainable layer of the packed weights, in float32.

        Raises:
            ValueError: the buffers have been changed and are no packed matrix.

        Cost: O(nnz) time and memory.
        """
        topology, values = unpack_matrix(self._matrix(), (self.out_features, self.in_features))
        return TrulySparseLinear.from_topology(topology, values, self.bias).train(self.training)

    @property
    def nnz(self) -> int:
        """Number of connections."""
        if self.in_features <= 2**16:
            return self.codes.shape[0]
        return int((self.codes != -1).sum())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the packed values."""
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        return sum(buffer.nbytes for buffer in self.buffers())

    def forward(self, input: Tensor) -> Tensor:
        """Apply `output = input @ W.T + bias`.

        Args:
            input: (*, in_features), float32, bfloat16 or float16. Within `torch.autocast` it is
                converted, as that of `nn.Linear`.

        Returns:
            (*, out_features) of the dtype of `input`.

        Raises:
            RuntimeError: a gradient of the input would be wanted.
            TypeError, ValueError: the input does not fit, or the buffers have been changed and are
                no packed matrix.
        """
        if not isinstance(input, Tensor):
            raise TypeError(f"`input` must be a torch.Tensor, got {type(input).__name__}")
        input = functional.autocast(input)
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            got = "a scalar" if input.dim() == 0 else f"{input.shape[-1]}"
            raise ValueError(f"`input` must have {self.in_features} features, got {got}")
        if input.dtype not in (torch.float32, *functional.HALVES):
            raise TypeError(
                f"`input` must be float32, bfloat16 or float16, got {input.dtype}: a packed layer "
                "computes in float32; convert the input with `input.float()`"
            )
        if input.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "a packed layer has no gradients: call the model within torch.no_grad() or "
                "torch.inference_mode(), or `tts.unpack` it"
            )
        if input.dim() == 2:
            return spmm_packed(input, *self._matrix(), self.bias)
        leading = input.shape[:-1]  # `leading.numel()` would fix a dynamic size of an export
        flat = input.reshape(math.prod(leading), self.in_features)
        output = spmm_packed(flat, *self._matrix(), self.bias)
        return output.reshape(*leading, self.out_features)

    def _matrix(self) -> Packed:
        return Packed(self.row_pointers, self.codes, self.values, self.scales)

    def extra_repr(self) -> str:
        """Say what the layer holds."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, nnz={self.nnz}, "
            f"bias={self.bias is not None}, dtype={str(self.dtype).removeprefix('torch.')}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PackedLinear:
        """Move the layer; conversions such as `half()` leave the packed dtypes alone."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load a packed matrix of any number of connections, checked; or leave all as it was."""
        own = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        given = {name: state_dict[prefix + name] for name in own if prefix + name in state_dict}
        missing_keys += [prefix + name for name in own if name not in given]
        superfluous = [
            key
            for key in state_dict
            if key.startswith(prefix) and key.removeprefix(prefix) not in own
        ]
        if strict:
            unexpected_keys += superfluous
        if len(given) < len(own) or (strict and superfluous):
            return
        problem = self._misfit(given)
        if problem:
            error_msgs.append(f"{prefix.rstrip('.') or 'the packed layer'}: {problem}")
            return
        assign = local_metadata.get("assign_to_params_buffers", False)
        for name, part in given.items():
            if not assign:
                part = part.to(own[name].device, copy=True)
            self._buffers[name] = part.detach().contiguous()

    def _misfit(self, given: dict[str, Any]) -> str:
        """Say why a saved matrix cannot be loaded; empty if it can."""
        for name, part in given.items():
            wanted = self._buffers[name]
            assert wanted is not None
            if (
                not isinstance(part, Tensor)
                or part.dtype != wanted.dtype
                or part.dim() != wanted.dim()
            ):
                kind = part.dtype if isinstance(part, Tensor) else type(part).__name__
                return f"`{name}` must be {wanted.dim()}-dimensional {wanted.dtype}, got {kind}" + (
                    "; pack the model with the dtype of the state" if name == "values" else ""
                )
            if part.layout != torch.strided or part.is_meta:
                return f"`{name}` must be an ordinary dense tensor with content"
        shape = (self.out_features, self.in_features)
        if tuple(given["shape"].tolist()) != shape:
            return (
                f"the state is of a matrix of shape {tuple(given['shape'].tolist())}, not {shape}"
            )
        if given["values"].shape != given["codes"].shape:
            return "`values` and `codes` must be of one size"
        for name in ("scales", "bias"):
            if name in given and given[name].shape != (self.out_features,):
                return f"`{name}` must have shape ({self.out_features},)"
        try:
            unpack_matrix(
                Packed(given["row_pointers"], given["codes"], given["values"], given.get("scales")),
                shape,
            )
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            return str(error)
        return ""


def check_packed_dtype(dtype: torch.dtype) -> None:
    """Raise a TypeError for a dtype that weights are not packed in."""
    if dtype not in PACKED_DTYPES:
        names = ", ".join(map(str, PACKED_DTYPES))
        raise TypeError(f"`dtype` must be one of {names}, got {dtype!r}")
