"""The truly sparse layer: it holds nonzero weights and their coordinates, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import functional
from ..ops import SCATTER_BATCH, TransposedOrder, transpose
from ..ops.differentiable import Orders
from ..topology import check_indices, from_positions, index_dtype
from .sparse_layer import SparseLayer

_DERIVED = ("crow_indices", "_ccol_indices", "_row_indices", "_permutation")


class TrulySparseLinear(SparseLayer):
    """A drop-in for `nn.Linear` that stores and computes only its nonzero weights.

    `output = input @ W.T + bias`, where W (out_features, in_features) has `nnz` nonzeros at
    random positions. Memory and time fall with the density; no array of the shape of W is made at
    any moment, from construction to saving.

    Args:
        in_features: number of input units.
        out_features: number of output units.
        bias: whether the layer has a bias (it is dense).
        density: fraction of the connections that are there, or
        epsilon: scale of an Erdos-Renyi topology, round(epsilon (in + out)) connections, or
        nnz: the number of connections. Exactly one of the three.
        init: `"he_uniform"`, `"xavier_uniform"`, `"set_normal"`, `"zeros"` or an `Initializer`;
            the fans are those that each unit really has.
        generator: source of the topology and the weights; None is torch's default generator.
        device: where the layer lives; on `meta` it has shapes only (see `reset_topology`).
        dtype: float32 or float64; None is torch's default dtype.

    Attributes:
        indices: buffer (2, nnz), int32 where the sizes fit, int64 otherwise: output units above
            input units, sorted row-major, unique. Assigning another topology of the same nnz
            checks it; changing it in place is noticed and checked at the next use.
        values: Parameter (nnz,), the weights in the order of `indices`. The same object for life.
        bias: Parameter (out_features,) or None.
        crow_indices: (out_features + 1,) int64 row pointers, derived, not saved.

    Shape: input (*, in_features), output (*, out_features).

    Raises:
        TypeError, ValueError: an argument has the wrong type or lies out of range.

    Cost: construction O(nnz + in + out); forward and backward O(nnz batch). 8 bytes a weight in
    float32 (value and column) for the forward pass, 4 for the row that `indices` also keeps, and
    8 for the transposed order once an input gradient of more than 16 samples has been asked for.

    Example:
        >>> layer = TrulySparseLinear(784, 300, density=0.05)
        >>> layer.nnz
        11760
        >>> layer(torch.zeros(2, 784)).shape
        torch.Size([2, 300])
    """

    values: nn.Parameter
    crow_indices: Tensor | None
    _ccol_indices: Tensor | None
    _row_indices: Tensor | None
    _permutation: Tensor | None
    # The tensor, and its version, from which the derived buffers were made.
    _checked: tuple[Tensor, int] | None = None

    def _allocate(self, nnz: int, device: torch.device, dtype: torch.dtype) -> None:
        indices = torch.empty(
            (2, nnz), dtype=index_dtype(self.out_features, self.in_features, nnz), device=device
        )
        self.register_buffer("indices", indices)
        self.values = nn.Parameter(torch.empty(nnz, device=device, dtype=dtype))
        for name in _DERIVED:
            self.register_buffer(name, None, persistent=False)

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls, linear: nn.Linear, *, density: float | None = None, mask: Tensor | None = None
    ) -> TrulySparseLinear:
        """Keep some weights of a dense layer.

        Args:
            linear: the dense layer; it is left as it is.
            density: keep the round(density * out * in) largest by magnitude, or
            mask: bool (out_features, in_features), keep these. Exactly one of the two.

        Returns:
            A new layer of the same dtype, device and training mode; weights and bias are copies.

        Raises:
            TypeError: not an nn.Linear, not exactly one of the two, or a mask that is not bool.
            ValueError: `density` or the shape of `mask` is out of range.

        Example:
            >>> TrulySparseLinear.from_dense(nn.Linear(10, 10), density=0.3).nnz
            30
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"`linear` must be an nn.Linear, got {type(linear).__name__}")
        if (density is None) == (mask is None):
            raise TypeError("exactly one of `density` and `mask` must be given")
        weight = linear.weight
        if mask is not None:
            positions = _positions_of_mask(mask, weight)
        else:
            if not 0 <= density <= 1:  # type: ignore[operator]  # not None here
                raise ValueError(f"`density` must lie in [0, 1], got {density}")
            count = round(density * weight.numel())  # type: ignore[operator]
            largest = weight.abs().flatten().topk(count, sorted=False).indices
            positions = largest.sort().values
        layer = cls(
            linear.in_features,
            linear.out_features,
            linear.bias is not None,
            nnz=positions.shape[0],
            device="meta",
            dtype=weight.dtype,
        ).to_empty(device=weight.device)
        layer.replace_topology(from_positions(positions, *weight.shape))
        layer.values.copy_(weight.flatten()[positions])
        layer.values.requires_grad_(weight.requires_grad)
        if layer.bias is not None:
            layer.bias.copy_(linear.bias)
            layer.bias.requires_grad_(linear.bias.requires_grad)
        return layer.train(linear.training)

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """Copy into an `nn.Linear`, with zeros where there is no connection.

        Cost: O(in_features * out_features) memory, unlike everything else here.
        """
        dense = nn.Linear(
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        indices = self._orders(transposed=False)[0]
        dense.weight.zero_()
        dense.weight[indices[0].long(), indices[1].long()] = self.values
        dense.weight.requires_grad_(self.values.requires_grad)
        if self.bias is not None:
            dense.bias.copy_(self.bias)
            dense.bias.requires_grad_(self.bias.requires_grad)
        return dense.train(self.training)

    @property
    def nnz(self) -> int:
        """Number of connections; explicit zeros count."""
        return self.values.shape[0]

    @property
    def weight(self) -> Tensor:
        """W as a coalesced torch.sparse_coo_tensor; gradients flow to `values`.

        For people: it widens the indices to int64, 16 bytes a weight. No inner path uses it.
        """
        indices = self._orders(transposed=False)[0]
        size = (self.out_features, self.in_features)
        return torch.sparse_coo_tensor(indices.long(), self.values, size, is_coalesced=True)

    def forward(self, input: Tensor) -> Tensor:
        """Apply `output = input @ W.T + bias`.

        Args:
            input: (*, in_features), of the dtype of `values`, or bfloat16 or float16 with float32.

        Returns:
            (*, out_features), new memory.

        Raises:
            TypeError: the dtypes of input and layer differ.
            ValueError: the input has another number of features, or the topology was damaged
                after it had been checked.
        """
        values, bias = self.values, self.bias
        functional.check_operands(
            input, values, bias, self.in_features, self.out_features, self.indices.shape[1]
        )
        for_input = (
            input.requires_grad
            and torch.is_grad_enabled()
            and input.numel() > SCATTER_BATCH * self.in_features
        )
        return functional.apply(input, values, bias, self._orders(transposed=for_input)[1])

    # The protocol through which networks evolve.

    @property
    def weight_parameter(self) -> nn.Parameter:
        """`values`."""
        return self.values

    def gather(self, tensor: Tensor) -> Tensor:
        """Return the tensor itself: it holds the entries of the connections already."""
        return tensor

    @torch.no_grad()
    def scatter_(self, tensor: Tensor, entries: Tensor) -> None:
        """Copy the entries into the tensor."""
        tensor.copy_(entries)

    @torch.no_grad()
    def replace_topology(self, indices: Tensor) -> None:
        """Put a topology of the same nnz in place, as `SparseLayer.replace_topology` says."""
        indices, crow_indices = check_indices(indices, self.out_features, self.in_features)
        if indices.shape[1] != self.nnz:
            raise ValueError(
                f"`indices` must hold {self.nnz} connections, one for each of `values`, "
                f"got {indices.shape[1]}"
            )
        self._install(self.indices.copy_(indices), crow_indices)

    # Derived orders. They belong to one indices tensor in one version.

    def _orders(self, *, transposed: bool) -> tuple[Tensor, Orders]:
        """Return the indices and what is derived from them, checked if they may have changed."""
        indices, checked = self.indices, self._checked
        if checked is not None and checked[0] is not indices:
            # Lent to this call alone, as torch.func.functional_call does: nothing is kept.
            indices, crow = check_indices(indices, self.out_features, self.in_features)
            return indices, Orders(crow, indices[1], self.in_features, None)
        if checked is None or checked[1] != _version(indices):
            with torch.inference_mode(False):  # what is kept must serve training, too
                canonical, crow = check_indices(indices, self.out_features, self.in_features)
            self._buffers["indices"] = canonical
            self._install(canonical, crow)
            indices = canonical
        if transposed and self._ccol_indices is None:
            self._ccol_indices, self._row_indices, self._permutation = transpose(
                cast(Tensor, self.crow_indices), indices[1], self.in_features
            )
        order = None
        if self._ccol_indices is not None:
            order = TransposedOrder(
                self._ccol_indices,
                cast(Tensor, self._row_indices),
                cast(Tensor, self._permutation),
            )
        crow = cast(Tensor, self.crow_indices)
        return indices, Orders(crow, indices[1], self.in_features, order)

    def _install(self, indices: Tensor, crow_indices: Tensor) -> None:
        """Adopt checked indices (already the buffer) and drop what was derived from others."""
        self.crow_indices = crow_indices
        self._ccol_indices = self._row_indices = self._permutation = None
        self._checked = (indices, _version(indices))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "indices" and "indices" in self.__dict__.get("_buffers", ()):
            indices, crow_indices = check_indices(value, self.out_features, self.in_features)
            if indices.shape[1] != self.nnz:
                raise ValueError(
                    f"`indices` must hold {self.nnz} connections, one for each of `values`, "
                    f"got {indices.shape[1]}"
                )
            if indices is value or indices.data_ptr() == value.data_ptr():
                indices = indices.clone()  # what the user goes on to write stays theirs
            self._buffers["indices"] = indices.to(self.values.device)
            self._install(self.indices, crow_indices)
            return
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle without the derived buffers; they are made again on first use."""
        state = self.__dict__.copy()
        state["_buffers"] = {**self._buffers, **dict.fromkeys(_DERIVED)}
        state["_checked"] = None
        return state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrulySparseLinear:
        before = self.indices
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.indices is not before:
            # Moved by `.to`, or emptied by `to_empty`: checked again on next use.
            self._checked = None
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
        """Load the saved topology with the saved values, whatever topology the layer has now.

        Raises:
            TypeError, ValueError: the saved topology is not one of this layer; the layer is left
                as it was.
        """
        indices, values = state_dict.get(prefix + "indices"), state_dict.get(prefix + "values")
        if indices is not None and values is not None:
            indices, _ = check_indices(indices, self.out_features, self.in_features)
            if not isinstance(values, Tensor) or values.shape != (indices.shape[1],):
                raise ValueError(
                    f"`{prefix}values` must have shape ({indices.shape[1]},), one for each column "
                    f"of `{prefix}indices`, got {tuple(getattr(values, 'shape', ()))}"
                )
            bias = state_dict.get(prefix + "bias")
            if bias is not None and self.bias is not None and bias.shape != self.bias.shape:
                raise ValueError(
                    f"`{prefix}bias` must have shape {tuple(self.bias.shape)}, "
                    f"got {tuple(bias.shape)}"
                )
            self._resize(indices.shape[1])
            state_dict = {**state_dict, prefix + "indices": indices}
        elif (indices is None) != (values is None):
            missing = "indices" if indices is None else "values"
            error_msgs.append(
                f"`{prefix}{missing}` is missing: values mean nothing without their positions. "
                "Save and load both, or neither."
            )
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._checked = None

    def _resize(self, nnz: int) -> None:
        """Make room for another number of connections; `values` stays the same object."""
        if nnz == self.nnz:
            return
        dtype = index_dtype(self.out_features, self.in_features, nnz)
        self._buffers["indices"] = torch.empty((2, nnz), dtype=dtype, device=self.indices.device)
        self.values.data = self.values.new_empty(nnz)
        self.values.grad = None
        self._checked = None


def _version(tensor: Tensor) -> int:
    """Count the in-place changes of a tensor; those made in inference mode are not counted."""
    return 0 if tensor.is_inference() else tensor._version


def _positions_of_mask(mask: Tensor, weight: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"`mask` must be a bool tensor, got {got}")
    if mask.shape != weight.shape:
        raise ValueError(
            f"`mask` must have the shape of the weight {tuple(weight.shape)}, "
            f"got {tuple(mask.shape)}"
        )
    return mask.flatten().nonzero().squeeze(1).to(weight.device)
