"""What the table does not say of the operators that carry a topology over to the next."""

from __future__ import annotations

import pytest
import torch
from oracles import INDEX_DTYPES
from topology_entries import change

from torch_truly_sparse._library import operators


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("index", INDEX_DTYPES, ids=str)
def test_numbers_of_any_content_raise_or_give_a_topology(seed: int, index: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    case = change("three pieces", index, large=True)
    size = case["out_features"], case["in_features"]
    indices, dropped = case["indices"].clone(), case["dropped"].clone()
    at = torch.randint(80_000, (3,), generator=generator)
    info = torch.iinfo(index)
    indices[seed % 2, at] = torch.tensor([info.max, info.min, 0])[seed % 3].to(index)
    # A byte that is neither 0 nor 1 counts as set, everywhere alike.
    dropped.view(torch.uint8)[at] = 255
    survivors = len(dropped) - int((dropped.view(torch.uint8) != 0).sum())
    operators.to_positions(indices, dropped, survivors, size[1])
    narrow = index == torch.int32
    try:
        following, _ = operators.merge(indices, dropped, case["regrown"], survivors, *size, narrow)
    except ValueError:
        return
    operators.compress(following, *size)  # raises unless sorted, unique and in range


def test_ranks_and_occupied_positions_of_any_content_give_numbers() -> None:
    wild = torch.randint(-(2**63), 2**63 - 1, (70_000,))
    assert operators.empty_positions(wild, wild.flip(0)).shape == wild.shape
