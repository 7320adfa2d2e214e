"""How the connections of a model are shared out among its layers, and how each layer's are placed.

A shape is (out_features, in_features), as that of `nn.Linear.weight`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._arguments import as_fraction
from .counts import connections_at, count_connections
from .sizes import Shape, check_size
from .topology import Topology


class Distribution(ABC):
    """The base class of the distributions, which share connections out among layers.

    A subclass implements `counts`, the number of connections of each layer. It may override `draw`
    and `largest`, which place the connections of one layer: by default uniformly at random, and at
    the largest weights.
    """

    @abstractmethod
    def counts(self, shapes: Sequence[Shape]) -> list[int]:
        """Return the number of connections of each layer.

        Args:
            shapes: (out_features, in_features) of each layer.
        """

    def count_at(self, shape: Shape, density: float) -> int:
        """Return the number of connections of one layer of the given density."""
        return count_connections(*shape, density=density)

    def draw(self, shape: Shape, nnz: int, *, generator: torch.Generator | None = None) -> Topology:
        """Draw the topology of one layer at random.

        Args:
            shape: (out_features, in_features).
            nnz: number of connections, as returned by `counts` or `count_at`.
            generator: source of randomness, or None for torch's default generator.

        Returns:
            A topology on the CPU.

        Raises:
            ValueError: `nnz` is out of range.

        Cost: O(nnz + out_features).
        """
        return Topology.random(*shape, nnz=nnz, generator=generator)

    def largest(self, weight: Tensor, nnz: int) -> Topology:
        """Return the topology of the `nnz` largest weights by magnitude.

        Args:
            weight: (out_features, in_features), dense.
            nnz: number of connections.

        Returns:
            A topology on the device of `weight`.

        Cost: O(out_features in_features) time and memory, and the time to sort nnz positions.
        """
        positions = weight.detach().abs().flatten().topk(nnz, sorted=False).indices
        out_features, in_features = weight.shape
        return Topology.from_positions(positions.sort().values, (out_features, in_features))


@dataclass(frozen=True)
class Uniform(Distribution):
    """The same density in every layer; each count is rounded to the nearest integer.

    Args:
        density: fraction of the possible connections of every layer, in [0, 1].

    Raises:
        TypeError, ValueError: `density` is not a number in [0, 1].

    Example:
        >>> Uniform(0.1).counts([(300, 784), (10, 300)])
        [23520, 300]
    """

    density: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", as_fraction(self.density, "density"))

    def counts(self, shapes: Sequence[Shape]) -> list[int]:
        """Return round(density * out_features * in_features) for each layer."""
        return [count_connections(*shape, density=self.density) for shape in shapes]


@dataclass(frozen=True)
class ErdosRenyi(Distribution):
    """Connections in proportion to the units: scale * (in_features + out_features) in each layer.

    Small layers become denser than large ones. The scale is `epsilon`, or follows from the
    density of all layers together. Exactly one of the two arguments must be given.

    Args:
        density: fraction of the possible connections of all layers together, in [0, 1]. The total
            is round(density * all positions), exactly. A layer whose share exceeds its number of
            positions is full, and the other layers share the rest.
        epsilon: the scale itself, at least 0; a layer has at most all its possible connections.

    Raises:
        TypeError: not exactly one of `density` and `epsilon` is given, or it is not a number.
        ValueError: `density` lies outside [0, 1], or `epsilon` is negative or not finite.

    Source: Mocanu et al. 2018 (doi 10.1038/s41467-018-04316-3) for epsilon; Evci et al. 2020,
    "Rigging the lottery" (arXiv 1911.11134), for the density. For linear layers their
    Erdos-Renyi-Kernel is the same.

    Example:
        >>> ErdosRenyi(epsilon=2).counts([(300, 784), (10, 300)])
        [2168, 620]
        >>> ErdosRenyi(density=0.1).counts([(300, 784), (10, 300)])
        [20820, 3000]
    """

    density: float | None = None
    epsilon: float | None = None

    def __post_init__(self) -> None:
        if (self.density is None) == (self.epsilon is None):
            raise TypeError("exactly one of `density` and `epsilon` must be given")
        if self.density is not None:
            object.__setattr__(self, "density", as_fraction(self.density, "density"))
        count_connections(1, 1, density=self.density, epsilon=self.epsilon)  # checks epsilon

    def counts(self, shapes: Sequence[Shape]) -> list[int]:
        """Return the share of each layer.

        Cost: O(layers) with `epsilon`, at most O(layers^2) with `density`.
        """
        if self.epsilon is not None:
            return [count_connections(*shape, epsilon=self.epsilon) for shape in shapes]
        for shape in shapes:
            check_size(shape)
        sizes = [out * in_ for out, in_ in shapes]
        # Whole numbers throughout: the total is exact, whatever the size.
        left = connections_at(self.density or 0.0, sum(sizes))
        weights = {layer: out + in_ for layer, (out, in_) in enumerate(shapes)}
        counts = [0] * len(shapes)
        whole = sum(weights.values())
        while full := [
            layer for layer, weight in weights.items() if left * weight >= sizes[layer] * whole
        ]:
            for layer in full:
                counts[layer] = sizes[layer]
                left -= sizes[layer]
                whole -= weights.pop(layer)
        for layer, weight in weights.items():
            counts[layer] = left * weight // whole
        # The connections that rounding down left over go to the layers that lost the most by it.
        losers = sorted(weights, key=lambda layer: -(left * weights[layer] % whole))
        for layer in losers[: left - sum(counts[layer] for layer in weights)]:
            counts[layer] += 1
        return counts


@dataclass(frozen=True)
class FixedFanIn(Distribution):
    """The same number of inputs for every output unit of a layer: round(density * in_features).

    A unit has at least one input unless the density is 0.

    Args:
        density: fraction of the inputs that each unit has, in [0, 1].

    Raises:
        TypeError, ValueError: `density` is not a number in [0, 1].

    Source: Lasby et al. 2024, "Dynamic sparse training with structured sparsity"
    (arXiv 2305.02299). Their training keeps the fan-in; random regrowth here does not.

    Example:
        >>> FixedFanIn(0.1).counts([(300, 784), (10, 300)])
        [23400, 300]
    """

    density: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "density", as_fraction(self.density, "density"))

    def counts(self, shapes: Sequence[Shape]) -> list[int]:
        """Return out_features times the fan-in for each layer."""
        return [self.count_at(shape, self.density) for shape in shapes]

    def count_at(self, shape: Shape, density: float) -> int:
        """Return out_features times the fan-in of one layer of the given density."""
        density = as_fraction(density, "density")
        check_size(shape)
        out_features, in_features = shape
        fan_in = connections_at(density, in_features)
        return out_features * max(fan_in, min(1, in_features) if density else 0)

    def draw(self, shape: Shape, nnz: int, *, generator: torch.Generator | None = None) -> Topology:
        """Draw nnz / out_features inputs for each output unit, as `Distribution.draw` says.

        Raises:
            ValueError: `nnz` is no multiple of out_features, or out of range.
        """
        return Topology.random(*shape, fan_in=_fan_in(shape, nnz), generator=generator)

    def largest(self, weight: Tensor, nnz: int) -> Topology:
        """Return the topology of the nnz / out_features largest weights of each output unit."""
        out_features, in_features = weight.shape
        fan_in = _fan_in((out_features, in_features), nnz)
        columns = weight.detach().abs().topk(fan_in, dim=1, sorted=False).indices.sort(1).values
        rows = torch.arange(out_features, device=weight.device).unsqueeze(1)
        positions = (rows * in_features + columns).flatten()
        return Topology.from_positions(positions, (out_features, in_features))


def distribution(
    which: str | Distribution | None,
    *,
    density: float | None = None,
    epsilon: float | None = None,
) -> Distribution:
    """Return the distribution of the given name, or the given object itself.

    Args:
        which: `"uniform"`, `"erdos_renyi"`, `"fixed_fan_in"`, a `Distribution` (which holds its
            own density), or None for uniform with a density, Erdos-Renyi with an epsilon.
        density: the density of the distribution, in [0, 1], or
        epsilon: the scale of `"erdos_renyi"`. Exactly one of the two with a name or None, neither
            of them with a `Distribution`.

    Raises:
        TypeError: `which` has the wrong type, or `density` and `epsilon` are not given as above.
        ValueError: the name is unknown, or a number is out of range.
    """
    if isinstance(which, Distribution):
        if density is not None or epsilon is not None:
            raise TypeError(
                f"{which} holds its own density: give a name, or neither `density` nor `epsilon`"
            )
        return which
    if which is not None and not isinstance(which, str):
        raise TypeError(
            f"`distribution` must be a name or a Distribution, got {type(which).__name__}"
        )
    if (density is None) == (epsilon is None):
        raise TypeError("exactly one of `density` and `epsilon` must be given")
    if which is None:
        which = "uniform" if epsilon is None else "erdos_renyi"
    if which == "erdos_renyi":
        return ErdosRenyi(density=density, epsilon=epsilon)
    if which not in _BY_DENSITY:
        names = ", ".join([*_BY_DENSITY, "erdos_renyi"])
        raise ValueError(f"`distribution` must be one of {names}, got {which!r}")
    if density is None:
        raise TypeError(f"`epsilon` belongs to 'erdos_renyi': {which!r} needs a `density`")
    return _BY_DENSITY[which](density)


_BY_DENSITY: Mapping[str, type[Uniform] | type[FixedFanIn]] = {
    "uniform": Uniform,
    "fixed_fan_in": FixedFanIn,
}


def _fan_in(shape: Shape, nnz: int) -> int:
    out_features, _ = shape
    if out_features == 0:
        return 0
    if nnz % out_features:
        raise ValueError(
            f"`nnz` must be a multiple of out_features = {out_features} with a fixed fan-in, "
            f"got {nnz}"
        )
    return nnz // out_features
