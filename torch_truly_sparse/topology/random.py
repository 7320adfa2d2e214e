"""Random numbers for topologies, in O(count) whatever the size of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import check_generator
from ..ops import empty_positions, sample


def draw_seed(generator: torch.Generator | None) -> int:
    """Take a 64-bit seed for the compiled samplers from a torch generator.

    Args:
        generator: the source, or None for torch's default generator.

    Raises:
        TypeError: it is neither.
    """
    check_generator(generator)
    device = "cpu" if generator is None else generator.device
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    return int(torch.randint(low, high, (), generator=generator, device=device).item())


def random_empty_positions(
    occupied: Tensor, population: int, count: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw positions that are not occupied, every subset of them equally likely.

    Args:
        occupied: (n,) int64 positions, increasing.
        population: number of positions in all.
        count: how many to draw, at most population - n.
        generator: source of randomness, or None for torch's default generator.

    Returns:
        (count,) int64 positions, increasing, new memory.

    Raises:
        ValueError: there are fewer empty positions than `count`.

    Cost: O(n + count); no rejected draws, however full the matrix.
    """
    ranks = sample(population - occupied.shape[0], count, draw_seed(generator))
    return empty_positions(occupied, ranks.to(occupied.device))
