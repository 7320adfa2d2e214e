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
            connections: (2, n) those that want a weight.
            topology: the whole topology that they are part of; it gives the fans.
            dtype: of the weights.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            (n,) weights on the device of `connections`, new memory.
        """
        ...  # pragma: no cover


class _FanUniform:
    """Uniform in +-sqrt(gain / fans), the fans being the connections that are there."""

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
        """Give each connection the bound that follows from the inputs of its output unit."""
        return self._bound(topology.fan_in().to(dtype)).index_select(0, connections[0])

    def _bound(self, fans: Tensor) -> Tensor:
        return fans.reciprocal_().mul_(self._gain).sqrt_()


@dataclass(frozen=True)
class LinearUniform(_FanUniform):
    """Uniform in +-1 / sqrt(fan_in), as `nn.Linear` draws its weights.

    The fan-in is that of the sparse unit, so that a sparse layer starts at the scale of the dense
    one that it replaces. He's weights are sqrt(6) times as large.
    """

    _gain = 1.0


@dataclass(frozen=True)
class HeUniform(_FanUniform):
    """Uniform in +-sqrt(6 / fan_in), fan_in being the connections that the unit has.

    Keeps the variance of activations through ReLU layers. Source: He et al. 2015, "Delving deep
    into rectifiers" (arXiv 1502.01852), there with the fan-in of a dense layer.
    """

    _gain = 6.0


@dataclass(frozen=True)
class XavierUniform(_FanUniform):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), the fans being the connections that are there.

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward
    neural networks", there with the fans of a dense layer.
    """

    _gain = 6.0

    def _bounds(self, connections: Tensor, topology: Topology, dtype: torch.dtype) -> Tensor:
        """Count the inputs of each connection's output unit and the outputs of its input unit."""
        fan_in, fan_out = topology.fan_in().to(dtype), topology.fan_out().to(dtype)
        fans = fan_in.index_select(0, connections[0])
        return self._bound(fans.add_(fan_out.index_select(0, connections[1])))


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0 and deviation `std`, whatever the fans; SET uses 0.1.

    Source: Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3), their code.
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
    """Zero: a new connection first has to learn. Source: RigL (Evci et al. 2020)."""

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
    """Look up an initializer by name; an object passes through.

    Raises:
        ValueError: the name is unknown.
        TypeError: it is neither a name nor an initializer.
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
    """Make room where the generator draws, whatever torch's default device is."""
    device = "cpu" if generator is None else generator.device
    return torch.empty(count, dtype=dtype, device=device)
