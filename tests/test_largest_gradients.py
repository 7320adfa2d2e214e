"""The largest gradients are found block by block: those of the whole gradient, exactly."""

import pytest
import torch
from evolving_network import seeded
from oracles import by_sorting
from torch import Tensor

from torch_truly_sparse.evolution import CapturedGradient, captured_gradient
from torch_truly_sparse.evolution.largest_gradients import largest_empty_positions

DTYPE = torch.float64


def gradient_of(dense: Tensor) -> CapturedGradient:
    """A gradient that is a given matrix, by way of one pass with an identity for its input."""
    out_features, in_features = dense.shape
    eye = torch.eye(in_features, dtype=dense.dtype)
    return CapturedGradient([(dense.t(), eye)], [1.0], out_features, in_features)


SHAPES = [(7, 5), (1, 40), (40, 1), (1, 1), (13, 16), (0, 3), (3, 0)]


@pytest.mark.parametrize("block", [1, 16, 40, 2**18])
@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "zero", "increasing"])
def test_the_largest_are_those_of_the_whole_gradient(size, kind, block, monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", block)
    generator = seeded()
    dense = {
        "normal": torch.randn(size, dtype=DTYPE, generator=generator),
        "ties": torch.randint(-2, 3, size, generator=generator).to(DTYPE),
        "equal": torch.full(size, -0.5, dtype=DTYPE),
        "zero": torch.zeros(size, dtype=DTYPE),
        "increasing": torch.arange(size[0] * size[1], dtype=DTYPE).view(size),
    }[kind]
    population = dense.numel()
    for taken in {0, population // 3, population}:
        occupied = torch.randperm(population, generator=generator)[:taken].sort().values
        for count in {
            0,
            1,
            (population - taken) // 4,
            (population - taken) // 2,
            population - taken,
        }:
            if count > population - taken:
                continue
            found = largest_empty_positions(gradient_of(dense), occupied, count)
            assert found.dtype == torch.int64
            assert found.tolist() == by_sorting(dense, occupied, count)


def test_more_than_the_empty_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="`count` must be at most the 2 empty positions, got 3"):
        largest_empty_positions(gradient_of(torch.ones(2, 3)), torch.arange(4), 3)


@pytest.mark.usefixtures("_restores_threads")
def test_the_number_of_threads_changes_no_choice(monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", 300)
    generator = seeded()
    passes = [[torch.randn(8, width, generator=generator) for width in (70, 60)] for _ in range(2)]
    gradient = CapturedGradient([(dy.round(), x.round()) for dy, x in passes], [1.0, 1.0], 70, 60)
    occupied = torch.arange(0, 4200, 3)
    dense = sum(dy.t() @ x for dy, x in gradient.passes)
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found = largest_empty_positions(gradient, occupied, 500)
        assert found.tolist() == by_sorting(dense, occupied, 500)
        assert torch.get_num_threads() == threads
