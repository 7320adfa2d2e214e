"""Initial weights, scaled by the connections that a unit really has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .._arguments import as_scale
from ..topology import Topology


class Initializer(Protocol):
    """Draws the weights of some connections of a layer."""

    def draw(
        self,
        connections: Tensor,
        topology: Topology,
        *,
        dtype: torch.dtype,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw a weight for each of `connections`.

        Args:
            connections: (2, n) coordinates of the connections to draw weights for.
            topology: the topology of the layer, which holds these connections and gives the fans.
            dtype: of the weights.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (n,) weights on the device of `connections`, new memory.
        """
        ...  # pragma: no cover


class _FanUniform:
    """Uniform in +-sqrt(gain / fans), where the fans count the connections that exist."""

    _gain: ClassVar[float]

    def draw(
        self,
        connections: Tensor,
        topology: Topology,
        *,
        dtype: torch.dtype,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw as `Initializer.draw` says."""
        bounds = self._bounds(connections, topology, dtype)
        unit = _empty(bounds.shape[0], dtype, generator).uniform_(-1, 1, generator=generator)
        return bounds.mul_(unit.to(bounds.device))

    def _bounds(self, connections: Tensor, topology: Topology, dtype: torch.dtype) -> Tensor:
        """Return the bound of each connection, from the number of inputs of its output unit."""
        return self._bound(topology.fan_in().to(dtype)).index_select(0, connections[0])

    def _bound(self, fans: Tensor) -> Tensor:
        return fans.reciprocal_().mul_(self._gain).sqrt_()


@dataclass(frozen=True)
class LinearUniform(_FanUniform):
    """Uniform in +-1 / sqrt(fan_in), as `nn.Linear` draws its weights.

    The fan-in is the number of connections that the unit has, so that a sparse layer starts at the
    scale of the dense layer that it replaces. `HeUniform` draws weights sqrt(6) times as large.
    """

    _gain = 1.0


@dataclass(frozen=True)
class HeUniform(_FanUniform):
    """Uniform in +-sqrt(6 / fan_in), where fan_in counts the connections that the unit has.

    This keeps the variance of activations through ReLU layers.

    Source: He et al. 2015, "Delving deep into rectifiers" (arXiv 1502.01852), who take the fan-in
    of a dense layer.
    """

    _gain = 6.0


@dataclass(frozen=True)
class XavierUniform(_FanUniform):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), where the fans count the connections that exist.

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward
    neural networks", who take the fans of a dense layer.
    """

    _gain = 6.0

    def _bounds(self, connections: Tensor, topology: Topology, dtype: torch.dtype) -> Tensor:
        """Return the bound of each connection, from the fans of its output and input unit."""
        fan_in, fan_out = topology.fan_in().to(dtype), topology.fan_out().to(dtype)
        fans = fan_in.index_select(0, connections[0])
        return self._bound(fans.add_(fan_out.index_select(0, connections[1])))


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0 and standard deviation `std`, whatever the fans.

    Raises:
        TypeError, ValueError: `std` is not a finite number of at least 0.

    Source: the code of SET (Mocanu et al. 2018, doi 10.1038/s41467-018-04316-3) takes 0.1.
    """

    std: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", as_scale(self.std, "std"))

    def draw(
        self,
        connections: Tensor,
        topology: Topology,
        *,
        dtype: torch.dtype,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw as `Initializer.draw` says."""
        weights = _empty(connections.shape[1], dtype, generator)
        return weights.normal_(0, self.std, generator=generator).to(connections.device)


@dataclass(frozen=True)
class Zeros:
    """All weights 0: a new connection changes no output before it has been trained.

    Source: RigL (Evci et al. 2020, "Rigging the lottery", arXiv 1911.11134).
    """

    def draw(
        self,
        connections: Tensor,
        topology: Topology,
        *,
        dtype: torch.dtype,
        generator: torch.Generator | None,
    ) -> Tensor:
        """Draw as `Initializer.draw` says."""
        return torch.zeros(connections.shape[1], dtype=dtype, device=connections.device)


_BY_NAME: dict[str, Initializer] = {
    "he_uniform": HeUniform(),
    "linear_uniform": LinearUniform(),
    "xavier_uniform": XavierUniform(),
    "set_normal": Normal(0.1),
    "zeros": Zeros(),
}


def initializer(init: str | Initializer) -> Initializer:
    """Return the initializer of the given name, or the given object itself.

    Raises:
        ValueError: the name is unknown.
        TypeError: `init` is neither a name nor an object with a method `draw`.
    """
    if isinstance(init, str):
        if init not in _BY_NAME:
            raise ValueError(f"`init` must be one of {', '.join(_BY_NAME)}, got {init!r}")
        return _BY_NAME[init]
    if not callable(getattr(init, "draw", None)):
        raise TypeError(
            f"`init` must be a name or an object with a method `draw`, got {type(init).__name__}"
        )
    return init


def _empty(count: int, dtype: torch.dtype, generator: torch.Generator | None) -> Tensor:
    """Return uninitialised memory on the device of the generator, not on torch's default device."""
    device = "cpu" if generator is None else generator.device
    return torch.empty(count, dtype=dtype, device=device)
