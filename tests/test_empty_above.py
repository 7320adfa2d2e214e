"""The search of a block of gradients: against plain torch, plain Python, and hostile input."""

from __future__ import annotations

import pytest
import torch
from oracles import VALUE_DTYPES, same_bits, spread
from torch import Tensor

from torch_truly_sparse import ops
from torch_truly_sparse.ops.empty_above import empty_above_reference

NAN, INF = float("nan"), float("inf")
FORMS = [ops.empty_above, empty_above_reference]
# A word of the set holds 64 entries, a piece of it 1024.
LENGTHS = [0, 1, 7, 63, 64, 65, 1023, 1024, 1025, 3000, 70_001]
THRESHOLDS = [-INF, -1.0, -0.0, 0.0, 0.5, 1.0, 2.5, INF, NAN]
FAR = 2**61 + 5  # positions of the largest layers

each_form = pytest.mark.parametrize("form", FORMS, ids=["compiled", "reference"])


def block(length: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers with ties, zeros of both signs, infinities and NaN among them."""
    generator = torch.Generator().manual_seed(length)
    numbers = torch.randn(length, generator=generator, dtype=dtype)
    for every, number in ((3, 0.5), (5, -0.5), (7, NAN), (11, INF), (13, -INF), (17, -0.0)):
        numbers[every::every] = number
    return numbers


def taken(length: int, share: float) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return (torch.rand(length, generator=generator) < share).nonzero().squeeze(1)


@each_form
@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
def test_only_what_exceeds_the_threshold_is_taken(form, threshold: float, dtype) -> None:
    gradients, occupied = block(130, dtype), taken(130, 0.2)
    positions, magnitudes = form(gradients, 1000, occupied + 1000, threshold)
    held = set(occupied.tolist())
    expected = [
        (1000 + i, 0.0 if number != number else abs(number))
        for i, number in enumerate(gradients.tolist())
        if i not in held and (threshold < 0 or abs(number) > threshold)
    ]
    assert list(zip(positions.tolist(), magnitudes.tolist(), strict=True)) == expected
    assert (positions.dtype, magnitudes.dtype) == (torch.int64, dtype)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("dtype", VALUE_DTYPES, ids=str)
def test_the_compiled_form_equals_plain_torch(length: int, share: float, dtype) -> None:
    gradients, occupied = block(length, dtype), taken(length, share) + FAR
    before = gradients.clone()
    for threshold in THRESHOLDS:
        found = ops.empty_above(gradients, FAR, occupied, threshold)
        wanted = empty_above_reference(gradients, FAR, occupied, threshold)
        assert all(map(same_bits, found, wanted))
    assert same_bits(gradients, before)


def test_any_memory_layout_is_read() -> None:
    gradients, occupied = block(99, torch.float32), taken(99, 0.3)
    expected = ops.empty_above(gradients, 0, occupied, 0.1)
    found = ops.empty_above(spread(gradients), 0, spread(occupied), 0.1)
    assert all(map(same_bits, found, expected))


@pytest.mark.filterwarnings("ignore")  # torch warns itself while it traces
def test_opcheck_and_shapes_on_meta() -> None:
    arguments = (block(70, torch.float32), 5, taken(70, 0.2) + 5, 0.1)
    operator = torch.ops.torch_truly_sparse.empty_above.default
    torch.library.opcheck(operator, arguments)
    torch.library.opcheck(operator, (arguments[0].double(), 5, arguments[2], -1.0))


@each_form
@pytest.mark.parametrize(
    "occupied",
    [
        [-1],
        [9],
        [30],
        [12, 11],
        [10, 29, 10],
        [15, 2**63 - 1],
        [-(2**63), 12],
        [2**62, -(2**62)],
    ],
    ids=str,
)
def test_occupied_positions_that_are_none_are_refused(form, occupied: list[int]) -> None:
    with pytest.raises(ValueError, match=r"`occupied` must increase and lie in .* \[10, 30\)"):
        form(torch.randn(20), 10, torch.tensor(occupied), 0.0)


@pytest.mark.parametrize("length", [1, 64, 3000])
def test_occupied_positions_of_any_content_touch_no_other_memory(length: int) -> None:
    """Poison on both sides of the gradients stays, whatever the positions say."""
    generator = torch.Generator().manual_seed(length)
    memory = torch.full((length + 128,), 7.0)
    gradients = memory[64 : 64 + length]
    for high in (length, 2 * length + 2, 2**62):
        occupied = torch.randint(-high, high, (50,), generator=generator)
        for some in (occupied, occupied.sort().values):
            with pytest.raises(ValueError, match="`occupied` must increase"):
                ops.empty_above(gradients, 3, some, -1.0)
    assert bool((memory == 7).all())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({0: torch.randn(2, 3)}, r"`gradients` must have 1 dimension\(s\), got 2"),
        ({0: torch.arange(3)}, "`gradients` must be float32 or float64"),
        ({1: -1}, r"`start` must lie in \[0, 2\*\*63 - n\), got -1"),
        ({1: 2**63 - 1}, r"`start` must lie in \[0, 2\*\*63 - n\)"),
        ({2: torch.tensor([1], dtype=torch.int32)}, "`occupied` must have dtype torch.int64"),
        ({2: torch.tensor([[1]])}, r"`occupied` must have 1 dimension\(s\), got 2"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[int, object], text: str) -> None:
    arguments: list[object] = [torch.randn(3), 0, torch.tensor([1]), 0.0]
    for place, argument in change.items():
        arguments[place] = argument
    with pytest.raises(ValueError, match=text):
        ops.empty_above(*arguments)
