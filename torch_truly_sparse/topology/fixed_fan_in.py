"""Random topologies in which every output unit has the same number of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from .coordinates import check_size, from_positions, index_dtype
from .random import draw_seed


def random_fixed_fan_in_indices(
    out_features: int, in_features: int, fan_in: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw `fan_in` distinct inputs for each output unit, every choice equally likely.

    Args:
        out_features: number of output units.
        in_features: number of input units.
        fan_in: number of inputs of every output unit, at most in_features.
        generator: source of randomness, or None for torch's default generator.

    Returns:
        (2, out_features * fan_in) indices of the narrowest dtype, sorted and unique, on the CPU.

    Raises:
        ValueError: a size is out of range.

    Cost: with nnz = out_features * fan_in, O(nnz) memory; O(nnz) random numbers, and the time to
    sort each unit's inputs.

    Source: the topology of Lasby et al. 2024, "Dynamic sparse training with structured sparsity"
    (arXiv 2305.02299).

    Example:
        >>> indices = random_fixed_fan_in_indices(3, 100, 4)
        >>> torch.bincount(indices[0]).tolist()
        [4, 4, 4]
    """
    check_size(out_features, in_features)
    if not 0 <= fan_in <= in_features:
        raise ValueError(
            f"`fan_in` must lie in [0, in_features] = [0, {in_features}], got {fan_in}"
        )
    # A stream of its own on the CPU, whatever the device of the generator.
    stream = torch.Generator().manual_seed(draw_seed(generator))
    if fan_in > in_features // 2:  # fewer to draw, and fewer collisions, among the absent ones
        absent = _distinct(out_features, in_features, in_features - fan_in, stream)
        # Under 2 nnz bytes.
        present = torch.ones((out_features, in_features), dtype=torch.bool, device="cpu")
        positions = present.scatter_(1, absent, False).flatten().nonzero().squeeze(1)
        return from_positions(positions, out_features, in_features)
    columns = _distinct(out_features, in_features, fan_in, stream)
    dtype = index_dtype(out_features, in_features, columns.numel())
    indices = torch.empty((2, columns.numel()), dtype=dtype, device="cpu")
    indices[0].view(columns.shape).copy_(torch.arange(out_features, device="cpu").unsqueeze(1))
    indices[1].copy_(columns.flatten())
    return indices


def _distinct(rows: int, population: int, count: int, stream: torch.Generator) -> Tensor:
    """Draw (rows, count) int64 numbers below `population`, increasing and distinct in a row.

    What collides is drawn again until nothing does. Neither step prefers a number to another, so
    every subset is equally likely; with count <= population / 2 at least half of what is drawn
    again is expected to fit each time.
    """
    drawn = torch.empty((rows, count), dtype=torch.int64, device="cpu")
    if drawn.numel() == 0:
        return drawn
    drawn = drawn.random_(population, generator=stream).sort(dim=1).values
    unfinished = torch.arange(rows, device="cpu")
    while True:
        repeated = drawn[unfinished].diff(dim=1) == 0
        collides = repeated.any(dim=1)
        unfinished, repeated = unfinished[collides], repeated[collides]
        if unfinished.numel() == 0:
            return drawn
        again = drawn[unfinished]
        fresh = torch.empty(int(repeated.sum()), dtype=torch.int64, device="cpu")
        again[:, 1:].masked_scatter_(repeated, fresh.random_(population, generator=stream))
        drawn[unfinished] = again.sort(dim=1).values
