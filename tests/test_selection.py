"""What the table of operators does not say of the selection of numbers."""

from __future__ import annotations

import pytest
import torch
from oracles import same_bits
from selection_entries import ILL_FORMED_OCCUPIED, KINDS, mark_smallest_oracle, numbers

from torch_truly_sparse import ops
from torch_truly_sparse._library import operators
from torch_truly_sparse.ops.empty_above import empty_above_reference
from torch_truly_sparse.ops.select import mark_smallest_reference


@pytest.mark.parametrize("form", [ops.mark_smallest, mark_smallest_reference])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32], ids=str)
def test_the_smallest_of_other_dtypes_are_those_of_a_stable_sort(form, kind, dtype) -> None:
    if dtype == torch.int32:
        scores = numbers(kind, 57, torch.float64).nan_to_num(0, 99, -99).clamp(-99, 99).int()
    else:
        scores = numbers(kind, 57, dtype)
    for count in (0, 1, 20, 56, 57):
        assert torch.equal(form(scores, count), mark_smallest_oracle(scores, count))


@pytest.mark.parametrize("occupied", ILL_FORMED_OCCUPIED, ids=str)
def test_occupied_positions_that_are_none_are_refused_in_plain_torch(occupied) -> None:
    with pytest.raises(ValueError, match=r"`occupied` must increase and lie in .* \[10, 30\)"):
        empty_above_reference(torch.randn(20), 10, torch.tensor(occupied), 0.0)


@pytest.mark.parametrize("length", [1, 64, 3000])
def test_occupied_positions_of_any_content_are_refused_and_touch_no_other_memory(length) -> None:
    """The numbers on both sides of the gradients stay, whatever the positions say."""
    generator = torch.Generator().manual_seed(length)
    memory = torch.full((length + 128,), 7.0)
    gradients = memory[64 : 64 + length]
    for high in (length, 2 * length + 2, 2**62):
        occupied = torch.randint(-high, high, (50,), generator=generator)
        for some in (occupied, occupied.sort().values):
            with pytest.raises(ValueError, match="`occupied` must increase"):
                operators.empty_above(gradients, 3, some, -1.0)
    assert same_bits(memory, torch.full_like(memory, 7))
