"""Random positions for topologies; the cost does not depend on the size of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import check_generator
from ..ops import empty_positions, sample


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a 64-bit seed for the compiled samplers from a torch generator.

    Args:
        generator: source of randomness, or None for torch's default generator.

    Returns:
        A signed 64-bit integer.

    Raises:
        TypeError: `generator` is neither a `torch.Generator` nor None.
    """
    check_generator(generator)
    device = "cpu" if generator is None else generator.device
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    return int(torch.randint(low, high, (), generator=generator, device=device).item())


def random_empty_positions(
    occupied: Tensor, population: int, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw `count` distinct positions that are not occupied, every subset equally likely.

    Args:
        occupied: (n,) int64 positions, increasing.
        population: number of positions in all.
        count: how many to draw, at most population - n.
        generator: source of randomness, or None for torch's default generator.

    Returns:
        (count,) int64 positions, increasing, new memory, on the device of `occupied`.

    Raises:
        TypeError: `generator` is neither a `torch.Generator` nor None.
        ValueError: there are fewer empty positions than `count`.

    Cost: O(n + count), however full the matrix: no draw is rejected.
    """
    ranks = sample(population - occupied.shape[0], count, draw_seed(generator))
    return empty_positions(occupied, ranks.to(occupied.device))
