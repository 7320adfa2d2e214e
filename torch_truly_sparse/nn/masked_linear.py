"""The masked-dense layer, with which truly sparse training is compared and tested."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..topology import Topology
from .conversion import layer_of, take_settings
from .sparse_layer import SparseLayer
from .truly_sparse_linear import TrulySparseLinear


class MaskedLinear(SparseLayer):
    """A dense weight times a binary mask: sparse in its results, dense in memory and time.

    `output = input @ (weight * mask).T + bias`. The layer takes the arguments of
    `TrulySparseLinear`, and from an equally seeded generator it draws the same topology and the
    same weights. Under the same training, evolution included, the two layers give the same results
    to rounding.

    Args:
        in_features, out_features, bias, density, epsilon, nnz, init, generator, device, dtype:
            as for `TrulySparseLinear`.

    Attributes:
        weight: Parameter (out_features, in_features); 0 where there is no connection.
        mask: bool buffer (out_features, in_features).
        bias: Parameter (out_features,) or None.

    Shape: input (*, in_features), output (*, out_features).

    Raises:
        TypeError, ValueError: an argument has the wrong type or lies out of range.

    Cost: O(in_features out_features) memory, O(in_features out_features batch) time.

    Example:
        >>> MaskedLinear(784, 300, density=0.05).mask.sum().item()
        11760
    """

    weight: nn.Parameter
    mask: Tensor

    def _allocate(self, nnz: int, device: torch.device, dtype: torch.dtype) -> None:
        size = (self.out_features, self.in_features)
        self._nnz = nnz
        self.weight = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        self.register_buffer("mask", torch.zeros(size, device=device, dtype=torch.bool))

    @classmethod
    @torch.no_grad()
    def from_sparse(cls, layer: TrulySparseLinear) -> MaskedLinear:
        """Copy a truly sparse layer: the same topology, weights and bias.

        Returns:
            A new layer of the same dtype, device and training mode.

        Raises:
            TypeError: `layer` is not a `TrulySparseLinear`.

        Cost: O(in_features out_features) time and memory.
        """
        if not isinstance(layer, TrulySparseLinear):
            raise TypeError(f"`layer` must be a TrulySparseLinear, got {type(layer).__name__}")
        topology = layer._checked_topology()
        masked = layer_of(cls, topology, layer.values, layer.bias, init=layer.init)
        take_settings(masked, layer.values, layer.bias, layer.training)
        return masked

    @property
    def nnz(self) -> int:
        """Number of connections; explicit zeros count."""
        return self._nnz

    @property
    def topology(self) -> Topology:
        """The topology, read from the mask in O(in_features out_features) at each call."""
        return Topology.from_mask(self.mask)

    @property
    def indices(self) -> Tensor:  # type: ignore[override]
        """The coordinates (2, nnz) of the connections; costs as much as `topology`."""
        return self.topology.indices

    def forward(self, input: Tensor) -> Tensor:
        """Apply `output = input @ (weight * mask).T + bias`.

        Args:
            input: (*, in_features) of the dtype of `weight`.

        Returns:
            (*, out_features) of the dtype of `input`, new memory.

        Raises:
            RuntimeError: torch's own error for a shape or a dtype that does not fit.
        """
        return F.linear(input, self.weight * self.mask, self.bias)

    @property
    def weight_parameter(self) -> nn.Parameter:
        """`weight`."""
        return self.weight

    def gather(self, tensor: Tensor) -> Tensor:
        """Return a copy of the entries under the mask, row by row."""
        return tensor[self.mask]

    @torch.no_grad()
    def scatter_(self, tensor: Tensor, entries: Tensor) -> None:
        """Write the entries under the mask, and 0 elsewhere."""
        tensor.zero_().masked_scatter_(self.mask, entries)

    @torch.no_grad()
    def replace_topology(self, topology: Topology) -> None:
        """Replace the topology, as `SparseLayer.replace_topology` says."""
        self._connect(self._fitting(topology, self.nnz))
        self.topology_learnt = True

    @torch.no_grad()
    def resize_topology(self, topology: Topology) -> None:
        """Replace the topology by one of any nnz, as `SparseLayer.resize_topology` says."""
        self.check_resizable()
        topology = self._fitting(topology, None)
        self.weight.grad = None
        self._nnz = topology.nnz
        self._connect(topology)
        self.topology_learnt = True

    def _connect(self, topology: Topology) -> None:
        _ = topology.row_pointers  # checks what has not been checked yet
        rows, columns = topology.indices.long()
        self.mask.zero_()
        self.mask[rows, columns] = True

    def check_state(
        self, state_dict: Mapping[str, Any], prefix: str = "", *, assign: bool = False
    ) -> None:
        """Check the shapes, as `SparseLayer.check_state` says; every mask is a valid topology."""
        for name, own in self.state_dict(keep_vars=True).items():
            saved = state_dict.get(prefix + name, own)
            if saved.shape != own.shape:
                raise ValueError(
                    f"`{prefix}{name}` must have shape {tuple(own.shape)}, got {tuple(saved.shape)}"
                )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self.topology_learnt = self.topology_learnt or prefix + "mask" in state_dict
        if self.mask.device.type != "meta":
            self._nnz = int(self.mask.sum())
