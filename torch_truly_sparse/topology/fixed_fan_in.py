"""Topologies in which every output unit has the same number of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arguments import as_int
from .random import draw_seed
from .sizes import Shape, check_size, index_dtype


def draw_fixed_fan_in(shape: Shape, fan_in: int, *, generator: torch.Generator | None) -> Tensor:
    """Draw `fan_in` distinct inputs for each output unit, every choice equally likely.

    Args:
        shape: (out_features, in_features).
        fan_in: number of inputs of every output unit, at most in_features.
        generator: source of randomness, or None for torch's default generator.

    Returns:
        (2, out_features * fan_in) indices of the narrowest dtype, sorted and unique, on the CPU.

    Raises:
        TypeError: `fan_in` is no int.
        ValueError: `fan_in` or a size is out of range.

    Cost: O(nnz) memory and random numbers, O(nnz log fan_in) time; nnz = out_features * fan_in.
    """
    check_size(shape)
    out_features, in_features = shape
    fan_in = as_int(fan_in, "fan_in")
    if not 0 <= fan_in <= in_features:
        raise ValueError(
            f"`fan_in` must lie in [0, in_features] = [0, {in_features}], got {fan_in}"
        )
    # The numbers are drawn on the CPU, whatever the device of the generator.
    stream = torch.Generator().manual_seed(draw_seed(generator))
    if fan_in <= in_features // 2:
        columns = _distinct(out_features, in_features, fan_in, stream)
    else:  # the absent inputs are fewer, and drawing them repeats fewer numbers
        absent = _distinct(out_features, in_features, in_features - fan_in, stream)
        present = torch.ones(shape, dtype=torch.bool, device="cpu")  # smaller than 2 nnz bytes
        positions = present.scatter_(1, absent, False).flatten().nonzero().squeeze(1)
        columns = positions.remainder_(max(in_features, 1)).view(out_features, fan_in)
    dtype = index_dtype(shape, columns.numel())
    indices = torch.empty((2, columns.numel()), dtype=dtype, device="cpu")
    indices[0].view(columns.shape).copy_(torch.arange(out_features, device="cpu").unsqueeze(1))
    indices[1].copy_(columns.flatten())
    return indices


def _distinct(rows: int, population: int, count: int, stream: torch.Generator) -> Tensor:
    """Draw (rows, count) int64 numbers below `population`, increasing and distinct in a row.

    A number that repeats another one of its row is drawn again until no row holds a repeated
    number. No step prefers one number to another, so that every subset is equally likely. With
    count <= population / 2, a number drawn again is new with a probability of at least 1 / 2.
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
