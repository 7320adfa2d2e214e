"""The truly sparse layer: it holds nonzero weights and their coordinates, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from .. import functional
from ..ops import SCATTER_BATCH
from ..topology import as_float, check_indices, from_positions, index_dtype
from .derived_orders import DerivedOrders
from .init import Initializer
from .sparse_layer import SparseLayer


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
        init: `"linear_uniform"` (the scale of `nn.Linear`), `"he_uniform"`, `"xavier_uniform"`,
            `"set_normal"`, `"zeros"` or an `Initializer`; the fans are those that each unit
            really has.
        generator: source of the topology and the weights; None is torch's default generator.
        device: where the layer lives; on `meta` it has shapes only (see `reset_topology`).
        dtype: float32 or float64; None is torch's default dtype. `layer.bfloat16()`, `half()` and
            `to(torch.bfloat16)` leave the weights float32; a layer of a half model then takes its
            half activations, and gives the same.

    Attributes:
        indices: buffer (2, nnz), int32 where the sizes fit, int64 otherwise: output units above
            input units, sorted row-major, unique. Assigning another topology of the same nnz
            checks it; changing it in place is noticed and checked at the next use.
        values: Parameter (nnz,), the weights in the order of `indices`. The same object for life.
        bias: Parameter (out_features,) or None.

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

    def _allocate(self, nnz: int, device: torch.device, dtype: torch.dtype) -> None:
        indices = torch.empty(
            (2, nnz), dtype=index_dtype(self.out_features, self.in_features, nnz), device=device
        )
        self.register_buffer("indices", indices)
        self.values = nn.Parameter(torch.empty(nnz, device=device, dtype=dtype))
        self._derived = DerivedOrders(self.out_features, self.in_features)

    @classmethod
    @torch.no_grad()
    def from_indices(
        cls,
        indices: Tensor,
        values: Tensor,
        bias: Tensor | None = None,
        *,
        out_features: int,
        in_features: int,
        init: str | Initializer = "linear_uniform",
    ) -> TrulySparseLinear:
        """Make a layer of known connections.

        Args:
            indices: (2, nnz) int32 or int64, sorted by output unit, then input unit, and unique.
            values: (nnz,) float32 or float64, their weights.
            bias: (out_features,), or None for a layer without.
            out_features: number of output units.
            in_features: number of input units.
            init: what `reset_parameters` draws.

        Returns:
            A new layer on the device and of the dtype of `values`; everything is copied.

        Raises:
            TypeError, ValueError: a dtype or a shape does not fit, or it is no topology.

        Cost: O(nnz + out_features).

        Example:
            >>> indices = torch.tensor([[0, 2], [1, 0]])
            >>> values = torch.tensor([3.0, 4.0])
            >>> layer = TrulySparseLinear.from_indices(
            ...     indices, values, out_features=3, in_features=2
            ... )
            >>> layer(torch.ones(1, 2)).tolist()
            [[3.0, 0.0, 4.0]]
        """
        indices, _ = check_indices(indices, out_features, in_features)
        nnz = indices.shape[1]
        for name, given, size in (("values", values, nnz), ("bias", bias, out_features)):
            if given is None and name == "bias":
                continue
            if not isinstance(given, Tensor):
                raise TypeError(f"`{name}` must be a torch.Tensor, got {type(given).__name__}")
            if given.shape != (size,):
                raise ValueError(f"`{name}` must have shape ({size},), got {tuple(given.shape)}")
        layer = cls(
            in_features,
            out_features,
            bias is not None,
            nnz=nnz,
            init=init,
            device="meta",
            dtype=values.dtype,
        ).to_empty(device=values.device)
        layer.replace_topology(indices.to(values.device))
        layer.values.copy_(values)
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
        return layer

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
            density = as_float(density, "density")
            if not 0 <= density <= 1:
                raise ValueError(f"`density` must lie in [0, 1], got {density}")
            count = round(density * weight.numel())
            largest = weight.abs().flatten().topk(count, sorted=False).indices
            positions = largest.sort().values
        indices = from_positions(positions, linear.out_features, linear.in_features)
        layer = cls.from_indices(
            indices,
            weight.flatten()[positions],
            linear.bias,
            out_features=linear.out_features,
            in_features=linear.in_features,
        )
        layer.values.requires_grad_(weight.requires_grad)
        if layer.bias is not None:
            layer.bias.requires_grad_(linear.bias.requires_grad)
        return layer.train(linear.training)

    @torch.no_grad()
    def to_dense(self) -> nn.Linear:
        """Copy into an `nn.Linear`, with zeros where there is no connection.

        Cost: O(in_features * out_features) memory, unlike everything else here.
        """
        indices = self._checked_indices()
        dense = nn.utils.skip_init(
            nn.Linear,
            self.in_features,
            self.out_features,
            self.bias is not None,
            device=self.values.device,
            dtype=self.values.dtype,
        )
        dense.weight.zero_()
        dense.weight[indices[0].long(), indices[1].long()] = self.values
        dense.weight.requires_grad_(self.values.requires_grad)
        if self.bias is not None:
            dense.bias.copy_(self.bias)
            dense.bias.requires_grad_(self.bias.requires_grad)
        dense.train(self.training)
        return cast(nn.Linear, dense)

    @property
    def nnz(self) -> int:
        """Number of connections; explicit zeros count."""
        return self.values.shape[0]

    @property
    def crow_indices(self) -> Tensor:
        """Row pointers, (out_features + 1,) int64; derived from `indices`, not saved."""
        return self._derived.of(self.indices).crow_indices

    @property
    def weight(self) -> Tensor:
        """W as a coalesced torch.sparse_coo_tensor; gradients flow to `values`.

        A copy, for people: what is written into it does not reach the layer; write into `values`.
        It widens the indices to int64, 20 bytes a weight. No inner path uses it.
        """
        indices = self._checked_indices()
        size = (self.out_features, self.in_features)
        values: Tensor = _InThisTopology.apply(self.values)  # type: ignore[no-untyped-call]
        return torch.sparse_coo_tensor(
            indices.to(torch.int64, copy=True),
            values,
            size,
            device=values.device,
            is_coalesced=True,
            check_invariants=False,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Apply `output = input @ W.T + bias`.

        Args:
            input: (*, in_features), of the dtype of `values`, or bfloat16 or float16 with float32.

        Returns:
            (*, out_features) of the dtype of `input`, new memory. Within `torch.autocast`, of the
            dtype that it asks for, as from `nn.Linear`.

        Raises:
            TypeError: the dtypes of input and layer differ.
            ValueError: the input has another number of features, or the topology was damaged
                after it had been checked.
        """
        indices, values, bias = self.indices, self.values, self.bias
        input = functional.autocast(input)
        functional.check_operands(
            input, values, bias, self.in_features, self.out_features, indices.shape[1]
        )
        for_input = (
            input.requires_grad
            and torch.is_grad_enabled()
            # Compiled code is to serve every batch, and asks no more of its size.
            and (torch.compiler.is_compiling() or input.numel() > SCATTER_BATCH * self.in_features)
        )
        orders = self._derived.of(indices, transposed=for_input)
        return functional.apply(input, values, bias, orders)

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
        self._derived.adopt(self.indices.copy_(indices), crow_indices)

    @torch.no_grad()
    def resize_topology(self, indices: Tensor) -> None:
        """Put a topology of any nnz in place, as `SparseLayer.resize_topology` says."""
        indices, crow_indices = check_indices(indices, self.out_features, self.in_features)
        self._resize(indices.shape[1])
        self.values.grad = None
        self._derived.adopt(self.indices.copy_(indices), crow_indices)

    def _checked_indices(self) -> Tensor:
        """Check the topology whatever its version says; for what torch does without checking."""
        return check_indices(self.indices, self.out_features, self.in_features)[0]

    # Everything that puts another tensor, or other entries, into `indices`.

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "indices" and "indices" in self.__dict__.get("_buffers", ()):
            indices, crow_indices = check_indices(value, self.out_features, self.in_features)
            if indices.shape[1] != self.nnz:
                raise ValueError(
                    f"`indices` must hold {self.nnz} connections, one for each of `values`, "
                    f"got {indices.shape[1]}"
                )
            if indices is value or indices.data_ptr() == value.data_ptr():
                with torch.inference_mode(False):
                    indices = indices.clone()  # what the user goes on to write stays theirs
            with torch.inference_mode(False):
                self._buffers["indices"] = indices.to(self.values.device)
                self._derived.adopt(self.indices, crow_indices.to(self.values.device))
            return
        if name == "weight":
            raise AttributeError(
                "`weight` cannot be assigned: it is a copy of `values` in the topology of "
                "`indices`. Write into `layer.values`, or take the weights of a dense layer with "
                "`TrulySparseLinear.from_dense(linear, density=...)`"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name == "indices" or (name == "values" and name in self._parameters):
            raise TypeError(
                f"`{name}` cannot be deleted or parametrized: evolution and saved states rely on "
                "it. To compute with a function of the values, call "
                "`torch.func.functional_call(layer, {'values': function(layer.values)}, (input,))`"
            )
        super().__delattr__(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TrulySparseLinear:
        """Move or convert the layer; in `half()` and `bfloat16()` the weights stay float32."""

        def convert(tensor: Tensor) -> Tensor:
            converted = fn(tensor)
            if not tensor.is_floating_point():
                return tensor.to(converted.device) if converted.dtype != tensor.dtype else converted
            if converted.dtype in functional.HALVES:
                return tensor.to(converted.device, torch.float32)
            return converted

        super()._apply(convert, recurse)  # type: ignore[no-untyped-call]
        self._derived.forget()  # moved by `.to`, or emptied by `to_empty`
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
        assign = local_metadata.get("assign_to_params_buffers", False)
        saved = [key in state_dict for key in (prefix + "indices", prefix + "values")]
        crow_indices = None
        if all(saved):
            indices, crow_indices = self._check_state(state_dict, prefix, assign)
            self._resize(indices.shape[1])
            state_dict = {**state_dict, prefix + "indices": indices}
            for key in prefix + "values", prefix + "bias":
                # `assign=True` would put a half where the weights are float32.
                if assign and key in state_dict and state_dict[key].dtype in functional.HALVES:
                    state_dict[key] = state_dict[key].float()
        elif any(saved):
            error_msgs.append(_alone(prefix, saved))
            return
        errors = len(error_msgs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._derived.forget()
        if crow_indices is not None and len(error_msgs) == errors:
            self._derived.adopt(self.indices, crow_indices.to(self.indices.device))

    def check_state(
        self, state_dict: Mapping[str, Any], prefix: str = "", *, assign: bool = False
    ) -> None:
        """Check a saved topology and its values, as `SparseLayer.check_state` says."""
        saved = [key in state_dict for key in (prefix + "indices", prefix + "values")]
        if all(saved):
            self._check_state(state_dict, prefix, assign)
        elif any(saved):
            raise ValueError(_alone(prefix, saved))
        elif self.bias is not None and prefix + "bias" in state_dict:
            bias = state_dict[prefix + "bias"]
            self._check_saved(prefix + "bias", bias, (self.out_features,), assign)

    def _check_state(
        self, state_dict: Mapping[str, Any], prefix: str, assign: bool
    ) -> tuple[Tensor, Tensor]:
        """Raise before anything is changed; give the indices and their row pointers."""
        indices, crow_indices = check_indices(
            state_dict[prefix + "indices"], self.out_features, self.in_features
        )
        if indices.shape[1] != self.nnz:
            self.check_resizable()
        wanted: dict[str, tuple[int, ...]] = {"values": (indices.shape[1],)}
        if self.bias is not None and prefix + "bias" in state_dict:
            wanted["bias"] = (self.out_features,)
        for name, shape in wanted.items():
            self._check_saved(prefix + name, state_dict[prefix + name], shape, assign)
        return indices, crow_indices

    def _check_saved(self, key: str, saved: Any, shape: tuple[int, ...], assign: bool) -> None:
        """Raise before anything is changed what would fail half-way."""
        if not isinstance(saved, Tensor):
            raise TypeError(f"`{key}` must be a torch.Tensor, got {type(saved).__name__}")
        if saved.shape != shape:
            raise ValueError(f"`{key}` must have shape {shape}, got {tuple(saved.shape)}")
        if saved.layout != torch.strided:
            raise ValueError(f"`{key}` must be a strided tensor, got layout {saved.layout}")
        if assign and not saved.is_floating_point():
            raise TypeError(f"`{key}` must be of floating point to be assigned, got {saved.dtype}")
        if saved.is_meta and not self.values.is_meta and not assign:
            raise ValueError(f"`{key}` is on the meta device and has no content to load")

    def _resize(self, nnz: int) -> None:
        """Make room for another number of connections; `values` stays the same object."""
        if nnz == self.nnz:
            return
        self.check_resizable()
        dtype = index_dtype(self.out_features, self.in_features, nnz)
        device = self.indices.device
        self.values.grad = None
        with torch.inference_mode(False):
            self._buffers["indices"] = torch.empty((2, nnz), dtype=dtype, device=device)
            room = self.values.new_empty(nnz)
            # A graph that is still alive (a kept loss) holds the node that accumulates this
            # gradient, with the size of old; torch makes a new one when the dtype changes.
            other = torch.float64 if room.dtype == torch.float32 else torch.float32
            self.values.data = room.new_empty(0, dtype=other)
            self.values.data = room
        self._derived.forget()


def _alone(prefix: str, saved: list[bool]) -> str:
    missing = "indices" if saved[1] else "values"
    return (
        f"`{prefix}{missing}` is missing: values mean nothing without their positions. "
        "Save and load both, or neither."
    )


class _InThisTopology(torch.autograd.Function):
    """A copy of the values; a backward pass after they changed raises torch's own error.

    Evolution would otherwise let the gradient reach the wrong connections in silence.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.save_for_backward(values)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        _ = ctx.saved_tensors  # checks that they have not changed in place
        return gradient


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
