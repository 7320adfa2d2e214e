"""The truly sparse layer, which holds only its nonzero weights and their coordinates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional
from .._arguments import check_tensor
from .._torch_internals import has_content
from ..ops import SCATTER_BATCH
from ..topology import SEAL_BITS, Topology, index_dtype, is_seal, seal_of
from .conversion import (
    coo_tensor,
    dense_linear,
    layer_of,
    take_settings,
    topology_to_keep,
    weights_at,
)
from .init import Initializer
from .kept_topology import KeptTopology
from .saved_state import (
    check_saved_bias,
    check_saved_seal,
    check_saved_topology,
    holds_topology,
    is_mark,
)
from .sparse_layer import SparseLayer
from .storage import in_full_precision, in_place, keeping_full_precision, make_room
from .weight_on_demand import WeightOnDemand


class TrulySparseLinear(SparseLayer):
    """A drop-in replacement for `nn.Linear` that stores and computes only its nonzero weights.

    `output = input @ W.T + bias`, where W (out_features, in_features) has `nnz` nonzeros at
    random positions. Memory and time fall with the density; no array of the shape of W is made at
    any moment, from construction to saving.

    Args:
        in_features: number of input units.
        out_features: number of output units.
        bias: whether the layer has a bias, which is dense.
        density: fraction of the possible connections that exist, in [0, 1], or
        epsilon: scale of an Erdos-Renyi topology, round(epsilon (in + out)) connections, or
        nnz: the number of connections. Exactly one of the three.
        init: `"linear_uniform"` (the scale of `nn.Linear`), `"he_uniform"`, `"xavier_uniform"`,
            `"set_normal"`, `"zeros"` or an `Initializer`; the fans count the connections that each
            unit has.
        generator: source of the topology and the weights; None is torch's default generator.
        device: device of the layer; on `meta` it has shapes only (see `reset_topology`).
        dtype: float32 or float64; None is torch's default dtype, or float32 where that is a half.
            `layer.bfloat16()`, `half()` and `to(torch.bfloat16)` leave the weights float32; such a
            layer takes activations of half precision and returns the same dtype.

    Attributes:
        indices: buffer (2, nnz), int32 where the sizes fit, int64 otherwise: output units above
            input units, sorted row-major, unique. An assignment of other indices of the same nnz
            checks them; a change in place is noticed at the next use, which raises.
        seal: buffer (192,) int8, the shape of the matrix and a checksum of `indices`. It is saved
            and copied with them, and says whether somebody has changed one without the other.
        topology: the `Topology` of these indices, with what is derived from them.
        values: Parameter (nnz,), the weights in the order of `indices`; the object never changes.
        bias: Parameter (out_features,) or None.

    Shape: input (*, in_features), output (*, out_features).

    Raises:
        TypeError, ValueError: an argument has the wrong type or lies out of range.

    Cost: construction O(nnz + in + out) time; forward and backward O((nnz + in + out) batch).
    Memory in float32: 8 bytes a weight (value and column) for the forward pass, 4 for the row that
    `indices` also holds, and 8 for the order by columns once an input gradient of more than 16
    samples has been asked for.

    Example:
        >>> layer = TrulySparseLinear(784, 300, density=0.05)
        >>> layer.nnz
        11760
        >>> layer(torch.zeros(2, 784)).shape
        torch.Size([2, 300])
    """

    values: nn.Parameter
    seal: Tensor
    _seal_comes_first = False  # a loader has assigned the seal, and not yet its indices

    def _allocate(self, nnz: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (self.out_features, self.in_features)
        indices = torch.empty((2, nnz), dtype=index_dtype(shape, nnz), device=device)
        self.register_buffer("indices", indices)
        self.register_buffer("seal", torch.empty(SEAL_BITS, dtype=torch.int8, device=device))
        self.values = nn.Parameter(torch.empty(nnz, device=device, dtype=dtype))
        self._kept = KeptTopology(shape)

    @classmethod
    @torch.no_grad()
    def from_topology(
        cls,
        topology: Topology,
        values: Tensor,
        bias: Tensor | None = None,
        *,
        init: str | Initializer = "linear_uniform",
    ) -> TrulySparseLinear:
        """Make a layer of known connections.

        Args:
            topology: the connections, of shape (out_features, in_features).
            values: (nnz,) float32 or float64, their weights, in the order of the topology.
            bias: (out_features,), or None for a layer without a bias.
            init: the initializer of later calls of `reset_parameters`.

        Returns:
            A new layer on the device and of the dtype of `values`; everything is copied.

        Raises:
            TypeError, ValueError: a dtype or a shape does not fit.

        Cost: O(nnz + out_features).

        Example:
            >>> topology = Topology.from_indices(torch.tensor([[0, 2], [1, 0]]), (3, 2))
            >>> layer = TrulySparseLinear.from_topology(topology, torch.tensor([3.0, 4.0]))
            >>> layer(torch.ones(1, 2)).tolist()
            [[3.0, 0.0, 4.0]]
        """
        if not isinstance(topology, Topology):
            raise TypeError(f"`topology` must be a Topology, got {type(topology).__name__}")
        check_tensor(values, "values", (topology.nnz,))
        if bias is not None:
            check_tensor(bias, "bias", (topology.out_features,))
        return layer_of(cls, topology, values, bias, init=init)

    @classmethod
    @torch.no_grad()
    def from_dense(
        cls, linear: nn.Linear, *, density: float | None = None, mask: Tensor | None = None
    ) -> TrulySparseLinear:
        """Make a layer of some weights of a dense layer.

        Args:
            linear: the dense layer; it is left as it is.
            density: keep the round(density * out * in) largest weights by magnitude, or
            mask: bool (out_features, in_features), keep the weights where it is True. Exactly one
                of the two must be given.

        Returns:
            A new layer of the same dtype, device and training mode; weights and bias are copies.

        Raises:
            TypeError: `linear` is not an nn.Linear, not exactly one of `density` and `mask` is
                given, or `mask` is not bool.
            ValueError: `density` is out of range, or `mask` has another shape than the weight.

        Cost: O(in_features out_features) time and memory.

        Example:
            >>> TrulySparseLinear.from_dense(nn.Linear(10, 10), density=0.3).nnz
            30
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"`linear` must be an nn.Linear, got {type(linear).__name__}")
        weight = linear.weight
        topology = topology_to_keep(weight, density, mask)
        layer = cls.from_topology(topology, weights_at(weight, topology), linear.bias)
        layer.topology_learnt = mask is None
        take_settings(layer, weight, linear.bias, linear.training)
        return layer

    def to_dense(self) -> nn.Linear:
        """Copy the layer into an `nn.Linear`, with zeros where there is no connection.

        Returns:
            A new layer of the same dtype, device and training mode.

        Raises:
            TypeError, ValueError: `indices` have been changed and are no valid topology.

        Cost: O(in_features out_features) time and memory.
        """
        dense = dense_linear(self._checked_topology(), self.values, self.bias)
        return dense.train(self.training)

    @property
    def nnz(self) -> int:
        """Number of connections; explicit zeros count."""
        return self.values.shape[0]

    @property
    def topology(self) -> Topology:
        """The connections of the layer; the topology shares the memory of `indices`."""
        return self._kept.of(self.indices, self.seal)

    def _checked_topology(self) -> Topology:
        return self._kept.checked(self.indices, self.seal)

    @property
    def weight(self) -> Tensor:
        """W as a coalesced torch.sparse_coo_tensor; gradients flow to `values`.

        W is a copy for inspection, which no layer computes with: to change the layer, write into
        `values`. The copy widens the indices to int64 and takes 20 bytes a weight. It is made by
        the first function that reads its entries; `weight.dtype`, `.shape`, `.device` and the like
        cost a few microseconds.

        Raises:
            TypeError, ValueError: as the entries are read: `indices` have been changed and are no
                valid topology.
            RuntimeError: as the entries are read: the layer has changed since `weight` was asked
                for.
        """
        indices, seal, values = self.indices, self.seal, self.values
        shape = (self.out_features, self.in_features)

        def matrix() -> Tensor:
            return coo_tensor(self._kept.checked(indices, seal), values)

        if torch.compiler.is_compiling():  # a graph cannot hold what is made on demand
            return coo_tensor(self.topology, values)
        return WeightOnDemand(matrix, shape, values, indices)

    def forward(self, input: Tensor) -> Tensor:
        """Apply `output = input @ W.T + bias`.

        Args:
            input: (*, in_features), of the dtype of `values`, or bfloat16 or float16 with float32.

        Returns:
            (*, out_features) of the dtype of `input`, new memory. Within `torch.autocast` the dtype
            is that of the autocast, as with `nn.Linear`.

        Raises:
            TypeError: the dtype of `input` does not go with that of the layer.
            ValueError: `input` has another number of features, or `indices` have been changed and
                are no valid topology.

        Cost: O((nnz + in_features + out_features) batch) time.
        """
        indices, values, bias = self.indices, self.values, self.bias
        input = functional.autocast(input)
        shape = (self.out_features, self.in_features)
        functional.check_operands(input, values, bias, shape, indices.shape[1])
        if indices.device != values.device:
            raise self._parted()
        if self._kept.origin is not None:
            self._kept.warn_of_foreign(values)
        for_input = (
            input.requires_grad
            and torch.is_grad_enabled()
            # One compiled graph must serve every batch size, so it does not test the size.
            and (torch.compiler.is_compiling() or input.numel() > SCATTER_BATCH * self.in_features)
        )
        topology = self._kept.of(indices, self.seal, transposed=for_input)
        return functional.multiply(input, values, bias, topology)

    def _parted(self) -> ValueError:
        """Return the error of a layer whose parts are on several devices."""
        return ValueError(
            f"`indices` are on {self.indices.device} and `values` on {self.values.device}: some of "
            "the layer was moved or loaded and some was not. Load the whole state again, or move "
            "the layer with `.to(device)`"
        )

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
    def replace_topology(self, topology: Topology) -> None:
        """Replace the topology, as `SparseLayer.replace_topology` says."""
        self._adopt(self._fitting(topology, self.nnz))
        self.topology_learnt = True

    @torch.no_grad()
    def resize_topology(self, topology: Topology) -> None:
        """Replace the topology by one of any nnz, as `SparseLayer.resize_topology` says."""
        topology = self._fitting(topology, None)
        _ = topology.row_pointers  # checks what has not been checked yet
        self._resize(topology.nnz)
        self.values.grad = None
        self._adopt(topology)
        self.topology_learnt = True

    @property
    def topology_changes(self) -> int:
        """How often the layer got another topology; a copy begins at 0."""
        return self._kept.changes

    def spoil(self) -> None:
        """Break the seal, so that every use raises until a state is loaded."""
        self._buffers["seal"] = torch.zeros_like(self.seal)
        self._kept.forget(self.indices, self.seal)

    def _adopt(self, topology: Topology) -> None:
        """Copy a topology of as many connections into the buffers."""
        row_pointers = topology.row_pointers  # checks what has not been checked yet
        self._kept.adopt(self.indices.copy_(topology.indices), row_pointers, self.seal)
        self._set_seal(topology)

    def _set_seal(self, topology: Topology) -> None:
        if has_content(topology.indices) and has_content(self.seal):
            seal = seal_of(topology)
            self._note_change(seal)
            self.seal.copy_(seal)

    def _note_change(self, seal: Tensor) -> None:
        """Note that another topology comes, if its seal is another one."""
        own = self.seal
        if not has_content(own) or not torch.equal(seal.sign().to(own.device), own.sign()):
            self._kept.note_change()

    # The ways by which another tensor, or other entries, get into `indices`.

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "indices" and "indices" in self.__dict__.get("_buffers", ()):
            topology = Topology.from_indices(value, (self.out_features, self.in_features))
            if topology.nnz != self.nnz:
                raise ValueError(
                    f"`indices` must hold {self.nnz} connections, one for each of `values`, "
                    f"got {topology.nnz}"
                )
            # A layer that is being loaded part by part has values on meta until they come, too.
            device = topology.device if self.values.is_meta else self.values.device
            if self._seal_comes_first:
                check_saved_seal(topology, {"seal": self.seal}, "")
            self._seal_comes_first = False
            self.topology_learnt = True
            indices = topology.indices
            with torch.inference_mode(False):
                # The layer must not share memory with a tensor that its owner may write to.
                theirs = not indices.is_meta and indices.data_ptr() == value.data_ptr()
                self._buffers["indices"] = (indices.clone() if theirs else indices).to(device)
                if has_content(indices):
                    seal = seal_of(topology).to(device)
                    self._note_change(seal)
                    self._buffers["seal"] = seal
                self._kept.adopt(self.indices, topology.row_pointers.to(device), self.seal)
            return
        if name == "seal" and "seal" in self.__dict__.get("_buffers", ()):
            if not is_seal(value):
                raise ValueError("`seal` must be 192 int8, as `state_dict` saves them")
            self._buffers["seal"] = value
            self._seal_comes_first = self.indices.is_meta and not value.is_meta
            self._kept.forget(self.indices, self.seal)  # the next use compares them
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
        super()._apply(keeping_full_precision(fn), recurse)  # type: ignore[no-untyped-call]
        self._kept.forget(self.indices, self.seal)  # moved by `.to`, or emptied by `to_empty`
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
        try:
            with_topology = holds_topology(state_dict, prefix)
        except ValueError as error:
            error_msgs.append(str(error))
            return
        if with_topology:
            topology = check_saved_topology(self, state_dict, prefix, assign=assign)
            self.topology_learnt = True
            self._resize(topology.nnz)
            state_dict = {**state_dict, prefix + "indices": topology.indices}
            if has_content(topology.indices):
                state_dict[prefix + "seal"] = seal = seal_of(topology)
                self._note_change(seal)
            if is_mark(state_dict.get(prefix + "weight")):
                del state_dict[prefix + "weight"]
            for key in prefix + "values", prefix + "bias":
                # `assign=True` would put a half where the weights are float32.
                if assign and key in state_dict:
                    state_dict[key] = in_full_precision(state_dict[key])
        elif prefix + "seal" in state_dict:  # says nothing without its indices
            state_dict = {key: state_dict[key] for key in state_dict if key != prefix + "seal"}
        errors = len(error_msgs)
        with in_place():
            super()._load_from_state_dict(
                state_dict,
                prefix,
                local_metadata,
                strict,
                missing_keys,
                unexpected_keys,
                error_msgs,
            )
        self._kept.forget(self.indices, self.seal)
        if prefix + "seal" in missing_keys and prefix + "indices" not in missing_keys:
            missing_keys.remove(prefix + "seal")  # the state was saved before there were seals
        if with_topology and len(error_msgs) == errors:
            row_pointers = topology.row_pointers.to(self.indices.device)
            self._kept.adopt(self.indices, row_pointers, self.seal)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle; a layer that was pickled before there were seals gets one."""
        super().__setstate__(state)
        if "seal" not in self._buffers:
            topology = super()._checked_topology()
            self.register_buffer("seal", seal_of(topology))
        self._kept.forget(self.indices, self.seal)
        self._kept.note_copy(self.values)

    def check_state(
        self, state_dict: Mapping[str, Any], prefix: str = "", *, assign: bool = False
    ) -> None:
        """Check a saved topology and its values, as `SparseLayer.check_state` says."""
        if holds_topology(state_dict, prefix):
            check_saved_topology(self, state_dict, prefix, assign=assign)
        else:
            check_saved_bias(self, state_dict, prefix, assign=assign)

    def _resize(self, nnz: int) -> None:
        """Make room for another number of connections; `values` stays the same object."""
        if nnz == self.nnz:
            return
        self.check_resizable()
        dtype = index_dtype((self.out_features, self.in_features), nnz)
        with torch.inference_mode(False):
            self._buffers["indices"] = self.indices.new_empty((2, nnz), dtype=dtype)
        make_room(self.values, nnz)
        self._kept.forget(self.indices, self.seal)
