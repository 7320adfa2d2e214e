"""Uniform sampling without replacement."""

from __future__ import annotations

import torch
from torch import Tensor

from .._library import operators
from .registration import fake


def sample(population: int, count: int, seed: int) -> Tensor:
    """Draw `count` distinct numbers of [0, population), every subset equally likely.

    Args:
        population: at most 2**62.
        count: between 0 and `population`.
        seed: any 64-bit signed integer; the same seed draws the same numbers, for any number of
            threads.

    Returns:
        (count,) int64 on the CPU, sorted, new memory.

    Raises:
        ValueError: `count` is negative or larger than `population`.

    Cost: O(count) time and memory, whatever the population.

    Source: Sanders et al. 2018, "Efficient parallel random sampling" (doi 10.1145/3157734), with
    the counter-based generator Philox4x32-10.

    Example:
        >>> sample(10**12, 3, seed=0).shape
        torch.Size([3])
    """
    output: Tensor = operators.sample(population, count, seed)
    return output


@fake("sample")
def _sample_fake(population: int, count: int, seed: int) -> Tensor:
    return torch.empty((count,), dtype=torch.int64)
