"""Random topologies, in O(nnz) whatever the size of the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import check_generator
from ..ops.positions import empty_positions
from ..ops.sample import sample
from .coordinates import check_size, from_positions


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


def random_indices(
    out_features: int, in_features: int, nnz: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw a topology, every one of exactly `nnz` connections equally likely.

    With nnz = round(epsilon (in_features + out_features)) this is the Erdos-Renyi topology of SET.

    Args:
        out_features: number of output units.
        in_features: number of input units.
        nnz: number of connections, at most out_features * in_features.
        generator: source of randomness, or None for torch's default generator.

    Returns:
        (2, nnz) indices of the narrowest dtype, sorted and unique, on the CPU.

    Cost: O(nnz) time and memory; nothing of size out_features * in_features.
    """
    check_size(out_features, in_features)
    if not 0 <= nnz <= out_features * in_features:
        raise ValueError(
            f"`nnz` must lie in [0, {out_features * in_features}] for a layer of "
            f"{in_features} x {out_features}, got {nnz}"
        )
    positions = sample(out_features * in_features, nnz, draw_seed(generator))
    return from_positions(positions, out_features, in_features)


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
