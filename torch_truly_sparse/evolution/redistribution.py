"""How the connections that regrow are shared among the layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from .._arguments import as_instance
from .gradient import one_thread
from .layer_view import LayerView


class Redistribution(ABC):
    """Gives each layer its share of the connections that regrow.

    The number of connections of the whole network stays, exactly; those of the layers change.
    """

    @abstractmethod
    def importance(self, view: LayerView) -> float:
        """Return how important a layer is: its share is in proportion.

        Args:
            view: the layer as it is before anything is pruned, to be read only.

        Returns:
            A finite number of at least 0; only the ratios between layers matter.
        """


@dataclass(frozen=True)
class MomentumRedistribution(Redistribution):
    """Give each layer a share in proportion to the mean |momentum| of its weights.

    The momentum is SGD's `momentum_buffer` or Adam's `exp_avg`; the paper's code divides Adam's by
    the root of `exp_avg_sq`.

    Source: sparse momentum, Dettmers and Zettlemoyer 2019 (arXiv 1907.04840).

    Cost: O(nnz).
    """

    def importance(self, view: LayerView) -> float:
        """Return the mean |momentum| of a layer, or 0 where the layer has no connections.

        Raises:
            ValueError: the optimizer keeps no momentum, or has not made a step yet.
        """
        with one_thread():
            return float(view.momentum.abs().mean(dtype=torch.float64)) if view.nnz else 0.0


def share_out(total: int, shares: Sequence[float], room: Sequence[int]) -> list[int]:
    """Divide a number of connections among layers in proportion, none beyond its room.

    What does not fit into a layer goes to the others, again in proportion. Counts are rounded by
    largest remainders, the first layer winning a tie, so that they add up to `total`.

    Args:
        total: number of connections to divide, at most the sum of `room`.
        shares: the importance of each layer, at least 0. Layers get equal parts where the shares of
            all layers that still have room are 0.
        room: number of connections that each layer can take.

    Returns:
        The count of each layer.

    Raises:
        ValueError: a share is negative or not finite, or `total` exceeds the room.

    Example:
        >>> share_out(10, [3.0, 1.0, 1.0], room=[4, 9, 9])
        [4, 3, 3]
    """
    if not all(share >= 0 and math.isfinite(share) for share in shares):
        raise ValueError(f"`shares` must be finite numbers of at least 0, got {list(shares)}")
    if total > sum(room):
        raise ValueError(f"`total` must be at most the room of {sum(room)}, got {total}")
    counts = [0] * len(room)
    open_ = [layer for layer in range(len(room)) if room[layer]]
    left = total
    while left:
        weights = {layer: Fraction(shares[layer]) for layer in open_}
        if not any(weights.values()):
            weights = dict.fromkeys(open_, Fraction(1))
        whole = sum(weights.values())
        quotas = {layer: left * weight / whole for layer, weight in weights.items()}
        full = [layer for layer, quota in quotas.items() if quota >= room[layer]]
        if not full:  # every quota is below its room, so that its rounding up still fits
            parts = {layer: math.floor(quota) for layer, quota in quotas.items()}
            by_remainder = sorted(open_, key=lambda layer: parts[layer] - quotas[layer])
            for layer in by_remainder[: left - sum(parts.values())]:
                parts[layer] += 1
            for layer, part in parts.items():
                counts[layer] = part
            return counts
        for layer in full:
            counts[layer] = room[layer]
            left -= room[layer]
        open_ = [layer for layer in open_ if layer not in full]
    return counts


_NAMED: dict[str, Redistribution] = {"momentum": MomentumRedistribution()}


def redistribution(given: str | Redistribution | None) -> Redistribution | None:
    """Look up a redistribution by name; one and None pass through. Errors: see `as_instance`."""
    return None if given is None else as_instance(given, "redistribute", Redistribution, _NAMED)
