"""The base class of the truly sparse layer and its masked-dense twin."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._arguments import as_int
from ..topology import Topology, count_connections
from .init import Initializer, initializer
from .storage import default_weight_dtype

# The layers that evolve, and their copies; none of them is kept alive by this set.
marked_layers: weakref.WeakSet[SparseLayer] = weakref.WeakSet()


class SparseLayer(nn.Module, ABC):
    """The base class of linear layers with a topology: all that evolution knows of a layer.

    Evolution uses only `topology`, `weight_parameter`, `gather`, `scatter_`, `replace_topology` and
    `resize_topology` of a layer. From the same seed, a truly sparse layer and its masked-dense twin
    therefore evolve through the same topologies.

    The constructor draws the topology, then the weights, from one generator: two layers of
    different classes built from equally seeded generators start with the same topology and weights.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None
    nnz_fixed_by: str | None = None
    """What relies on the number of weights (a data-parallel wrapper), or None."""
    topology_learnt: bool = False
    """Whether the topology is no longer the one that the layer was made with, or was chosen by
    trained weights: `reset_parameters` then draws another one."""
    _evolves: bool = False
    if TYPE_CHECKING:
        indices: Tensor
        """(2, nnz) topology: output units above input units, sorted row-major, unique."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        density: float | None = None,
        epsilon: float | None = None,
        nnz: int | None = None,
        init: str | Initializer = "linear_uniform",
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features = as_int(in_features, "in_features", least=0)
        self.out_features = as_int(out_features, "out_features", least=0)
        self.init = initializer(init)
        dtype = default_weight_dtype() if dtype is None else dtype
        if dtype not in (torch.float32, torch.float64):
            raise TypeError(
                f"`dtype` must be float32 or float64, got {dtype}: the weights stay float32 where "
                "the input is bfloat16 or float16"
            )
        device = torch.get_default_device() if device is None else torch.device(device)
        connections = count_connections(
            self.out_features, self.in_features, density=density, epsilon=epsilon, nnz=nnz
        )
        self._allocate(connections, device, dtype)
        if bias:
            self.bias = nn.Parameter(torch.empty(self.out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        if self.weight_parameter.is_meta:  # also where a loader moves parameters as they are made
            for name, buffer in self._buffers.items():
                self._buffers[name] = None if buffer is None else buffer.to("meta")
        else:
            self.reset_topology(generator=generator)

    @abstractmethod
    def _allocate(self, nnz: int, device: torch.device, dtype: torch.dtype) -> None:
        """Create the parameters and buffers, uninitialised."""

    @property
    @abstractmethod
    def topology(self) -> Topology:
        """The connections of the layer.

        Raises:
            TypeError, ValueError: `indices` have been changed and are no valid topology.
        """

    @property
    @abstractmethod
    def weight_parameter(self) -> nn.Parameter:
        """The parameter that holds the weights, the same object for life."""

    @property
    @abstractmethod
    def nnz(self) -> int:
        """Number of connections."""

    @property
    def density(self) -> float:
        """Fraction of the possible connections that exist; 0 for a matrix without positions."""
        positions = self.in_features * self.out_features
        return self.nnz / positions if positions else 0.0

    @abstractmethod
    def gather(self, tensor: Tensor) -> Tensor:
        """Return the entries of the connections, in the order of `indices`.

        Args:
            tensor: of the shape of `weight_parameter` (the weights, a gradient, optimizer state).

        Returns:
            (nnz,), possibly the tensor itself.
        """

    @abstractmethod
    def scatter_(self, tensor: Tensor, entries: Tensor) -> None:
        """Write the entries of the connections in place, the inverse of `gather`.

        Args:
            tensor: of the shape of `weight_parameter`; entries without a connection become 0.
            entries: (nnz,) in the order of `indices`.
        """

    @abstractmethod
    def replace_topology(self, topology: Topology) -> None:
        """Replace the topology by a copy of another one of the same nnz.

        The caller has to write the weights of the new connections (`scatter_`).

        Args:
            topology: a topology of the shape of this layer, on any device.

        Raises:
            TypeError, ValueError: `topology` does not fit this layer; nothing is changed.
        """

    @abstractmethod
    def resize_topology(self, topology: Topology) -> None:
        """Replace the topology by a copy of another one of any nnz.

        `weight_parameter` stays the same object and loses its gradient. The caller has to write the
        weights (`scatter_`) and to resize the optimizer's state, as the rules of evolution that
        change the number of connections do.

        Args:
            topology: a topology of the shape of this layer, on any device.

        Raises:
            TypeError, ValueError: `topology` does not fit this layer, or `nnz_fixed_by` is set;
                nothing is changed.
        """

    @abstractmethod
    def check_state(
        self, state_dict: Mapping[str, Any], prefix: str = "", *, assign: bool = False
    ) -> None:
        """Check a saved state before `load_state_dict` loads it into this layer; change nothing.

        Args:
            state_dict: a saved state.
            prefix: prefix of this layer's keys in `state_dict`.
            assign: whether the state is to be loaded with `assign=True`.

        Raises:
            TypeError, ValueError: the state does not fit this layer, or holds no valid topology.
        """

    @property
    def topology_changes(self) -> int:
        """How often the layer got another topology, as far as it counts this."""
        return 0

    def spoil(self) -> None:
        """Make the layer raise at every use until a state is loaded: it is between two states."""

    def _checked_topology(self) -> Topology:
        """Return the topology, checked anew, for code that reads the indices without checking."""
        return Topology.from_indices(self.indices, (self.out_features, self.in_features))

    def _fitting(self, topology: Topology, nnz: int | None) -> Topology:
        """Return a topology on the device of this layer, after checking that it fits the layer.

        Args:
            topology: the topology that is to replace that of the layer.
            nnz: the number of connections that `topology` must have, or None for any.

        Raises:
            TypeError, ValueError: `topology` does not fit.
        """
        if not isinstance(topology, Topology):
            raise TypeError(
                f"`topology` must be a Topology, got {type(topology).__name__}: make one with "
                "`Topology.from_indices(indices, (out_features, in_features))`"
            )
        shape = (self.out_features, self.in_features)
        if topology.shape != shape:
            raise ValueError(
                f"`topology` must have the shape {shape} (out_features, in_features) of the layer, "
                f"got {topology.shape}"
            )
        if nnz is not None and topology.nnz != nnz:
            raise ValueError(
                f"`topology` must hold {nnz} connections, one for each weight, got {topology.nnz}"
            )
        return topology.to(self.weight_parameter.device)

    def check_resizable(self) -> None:
        """Raise a ValueError where something relies on the number of weights."""
        if self.nnz_fixed_by is not None:
            raise ValueError(
                f"the number of connections is fixed by {self.nnz_fixed_by}, which relies on the "
                "size of the weights: resize before wrapping the model"
            )

    def mark_evolving(self, evolves: bool) -> None:
        """Note that the layer evolves, or no longer does; copies and pickles take the note along.

        Weights that train although the note says that their topology should evolve are warned of.
        """
        self._evolves = evolves
        if evolves:
            marked_layers.add(self)
        else:
            marked_layers.discard(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickle or copy the layer."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self._evolves:
            marked_layers.add(self)

    @torch.no_grad()
    def reset_topology(self, *, generator: torch.Generator | None = None) -> None:
        """Draw a new topology of the same nnz, uniformly at random, and new weights for it.

        Call it after construction on the `meta` device and `to_empty(device=...)`, which leave a
        layer without content. The state of an optimizer is not touched: make a new optimizer.

        Args:
            generator: source of randomness, or None for torch's default generator.

        Cost: O(nnz + in_features + out_features).
        """
        self._draw_topology(generator)
        self.reset_weights(generator=generator)

    @torch.no_grad()
    def reset_parameters(
        self,
        init: str | Initializer | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """Make the layer as new, in place: nothing that it has learnt is left.

        The weights are drawn anew and the bias becomes 0. So is the topology, uniformly at random,
        if it has changed since the layer was made (by evolution, by an assignment, by a saved
        state) or was chosen by trained weights (`from_dense(density=...)`,
        `sparsify(init="magnitude")`). A topology that was drawn or given when the layer was made,
        and is still there, stays. To keep the topology in any case, call `reset_weights`. The state
        of an optimizer is not touched: make a new optimizer.

        Args:
            init: as for `reset_weights`.
            generator: source of randomness, or None for torch's default generator.

        Cost: O(nnz + in_features + out_features).
        """
        if self.topology_learnt:
            self._draw_topology(generator)
        self.reset_weights(init, generator=generator)

    def _draw_topology(self, generator: torch.Generator | None) -> None:
        topology = Topology.random(
            self.out_features, self.in_features, nnz=self.nnz, generator=generator
        )
        self.replace_topology(topology)
        self.topology_learnt = False

    @torch.no_grad()
    def reset_weights(
        self,
        init: str | Initializer | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """Draw new weights in place; the bias becomes 0 (as in He et al. 2015 and in SET).

        The topology stays, with all that evolution has learnt. Cross-validation needs
        `reset_parameters` between its folds.

        Args:
            init: `"linear_uniform"` (the scale of `nn.Linear`), `"he_uniform"`,
                `"xavier_uniform"`, `"set_normal"` (N(0, 0.1^2)), `"zeros"`, an
                `Initializer`, or None for the one given at construction. The fans count the
                connections that a unit has, not the possible ones.
            generator: source of randomness, or None for torch's default generator.

        Cost: O(nnz + in_features + out_features).
        """
        parameter = self.weight_parameter
        topology = self._checked_topology()
        weights = (self.init if init is None else initializer(init)).draw(
            topology.indices, topology, dtype=parameter.dtype, generator=generator
        )
        self.scatter_(parameter, weights)
        if self.bias is not None:
            self.bias.zero_()

    def extra_repr(self) -> str:
        """Describe the layer as `print(model)` shows it."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, nnz={self.nnz}, "
            f"density={self.density:.4g}, bias={self.bias is not None}"
        )
