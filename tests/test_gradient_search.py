"""A gradient comes in blocks: their sum, memory and threads, and the largest entries in them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from evolving_network import seeded
from oracles import by_sorting
from torch import Tensor

from torch_truly_sparse.evolution.gradient import largest_empty_positions, search
from torch_truly_sparse.rules import CapturedGradient

DTYPE = torch.float64


def test_several_passes_add_up_scaled() -> None:
    generator = seeded()
    passes = [
        (torch.randn(4, 7, generator=generator), torch.randn(4, 5, generator=generator))
        for _ in range(3)
    ]
    gradient = CapturedGradient(passes, [1.0, 0.5, -2.0], (7, 5), reduce=lambda block: block * 2)
    dense = 2 * sum(
        scale * dy.t() @ x for scale, (dy, x) in zip([1.0, 0.5, -2.0], passes, strict=True)
    )
    blocks = torch.cat([block for _, block in gradient.blocks()])
    torch.testing.assert_close(blocks, dense)
    some = torch.tensor([0, 3, 4, 17, 34])
    torch.testing.assert_close(gradient.at(some), dense.flatten()[some])


def test_blocks_share_one_buffer_of_bounded_size() -> None:
    gradient = CapturedGradient([(torch.ones(1, 1000), torch.ones(1, 3000))], [1.0], (1000, 3000))
    pointers = set()
    for first, block in gradient.blocks():
        pointers.add(block.data_ptr())
        assert block.numel() <= search.BLOCK
        rows = first + block.shape[0]
    assert rows == 1000
    assert len(pointers) == 1


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("size", [(7, 5000), (300, 64)], ids=str)
def test_the_number_of_threads_changes_no_bit(size: tuple[int, int]) -> None:
    generator = seeded()
    passes = [[torch.randn(128, width, generator=generator) for width in size] for _ in range(2)]
    gradient = CapturedGradient([(dy, x) for dy, x in passes], [1.0, 0.9], size)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(torch.cat([block.clone() for _, block in gradient.blocks()]))
        assert torch.get_num_threads() == threads
    assert all(torch.equal(results[0], result) for result in results)


@pytest.mark.usefixtures("_restores_threads")
def test_blocks_on_threads_come_in_order_from_bounded_memory(monkeypatch) -> None:
    monkeypatch.setattr(search, "BLOCK", 30)
    gradient = CapturedGradient([(torch.ones(1, 300), torch.ones(1, 10))], [1.0], (300, 10))
    torch.set_num_threads(3)
    seen = []

    def note(first: int, block: Tensor) -> int:
        seen.append((block.data_ptr(), threading.get_ident(), torch.get_num_threads()))
        return first

    assert list(gradient.map_blocks(note)) == list(range(0, 300, 3))
    buffers, workers, threads = map(set, zip(*seen, strict=True))
    assert len(buffers) <= 3
    assert 1 <= len(workers) <= 3
    assert threading.get_ident() not in workers
    assert threads == {1}
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("leave", ["error", "early"])
def test_threads_end_and_leave_torch_as_it_was(leave: str, monkeypatch) -> None:
    monkeypatch.setattr(search, "BLOCK", 30)
    gradient = CapturedGradient([(torch.ones(1, 300), torch.ones(1, 10))], [1.0], (300, 10))
    torch.set_num_threads(3)
    before = threading.active_count()

    def stop(first: int, block: Tensor) -> None:
        if leave == "error" and first >= 60:
            raise KeyError("no such block")

    blocks = gradient.map_blocks(stop)
    if leave == "error":
        with pytest.raises(KeyError, match="no such block"):
            list(blocks)
    else:
        next(blocks)
        blocks.close()
    assert threading.active_count() == before
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as newcomer:  # torch gives it the number that was set last
        assert newcomer.submit(torch.get_num_threads).result() == 3


@pytest.mark.usefixtures("_restores_threads")
def test_sums_across_processes_keep_to_one_thread_and_their_order(monkeypatch) -> None:
    monkeypatch.setattr(search, "BLOCK", 30)
    summed = []

    def reduce(block: Tensor) -> Tensor:
        summed.append((threading.get_ident(), int(block[0, 0])))
        return block

    rows = torch.arange(300.0)[None]
    gradient = CapturedGradient([(rows, torch.ones(1, 10))], [1.0], (300, 10), reduce)
    torch.set_num_threads(3)
    assert list(gradient.map_blocks(lambda first, block: first)) == list(range(0, 300, 3))
    assert summed == [(threading.get_ident(), first) for first in range(0, 300, 3)]


def gradient_of(dense: Tensor) -> CapturedGradient:
    """A gradient that is a given matrix, by way of one pass with an identity for its input."""
    out_features, in_features = dense.shape
    eye = torch.eye(in_features, dtype=dense.dtype)
    return CapturedGradient([(dense.t(), eye)], [1.0], (out_features, in_features))


SHAPES = [(7, 5), (1, 40), (40, 1), (1, 1), (13, 16), (0, 3), (3, 0)]


@pytest.mark.parametrize("block", [1, 16, 40, 2**18])
@pytest.mark.parametrize("size", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "ties", "equal", "zero", "increasing"])
def test_the_largest_are_those_of_the_whole_gradient(size, kind, block, monkeypatch) -> None:
    monkeypatch.setattr(search, "BLOCK", block)
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


@pytest.mark.parametrize("kind", ["normal", "heavy", "sparse", "ties", "equal", "zero", "nan"])
@pytest.mark.parametrize("count", [1, 30, 200, 1000])
def test_a_first_threshold_from_a_sample_changes_no_choice(kind, count, monkeypatch) -> None:
    monkeypatch.setattr(search, "BLOCK", 300)
    monkeypatch.setattr(search, "SAMPLE", 64)
    generator = seeded()
    normal = torch.randn(70, 60, dtype=DTYPE, generator=generator)
    dense = {
        "normal": normal,
        "heavy": normal**5,
        "sparse": torch.where(normal > 2, normal, 0),  # the sample may find hardly any
        "ties": normal.round(),
        "equal": torch.full_like(normal, 0.5),
        "zero": torch.zeros_like(normal),
        "nan": torch.where(normal > 1, torch.nan, normal).masked_fill(normal < -2, torch.inf),
    }[kind]
    occupied = torch.randperm(4200, generator=generator)[:900].sort().values
    found = largest_empty_positions(_Given(dense), occupied, count)
    assert found.tolist() == by_sorting(dense, occupied, count)


@pytest.mark.parametrize("misled", ["too high", "too low"])
def test_a_sample_that_misleads_costs_time_only(misled, monkeypatch) -> None:
    monkeypatch.setattr(search, "SAMPLE", 64)
    searches = []
    unwatched = search._search
    monkeypatch.setattr(
        search, "_search", lambda *args: searches.append(args[-1]) or unwatched(*args)
    )
    dense = torch.randn(70, 60, dtype=DTYPE, generator=seeded())
    gradient, occupied = _Given(dense), torch.arange(0, 4200, 5)
    lie = (lambda g: g + 9) if misled == "too high" else (lambda g: g * 0)
    gradient.at = lambda positions: lie(dense.flatten()[positions].abs())
    found = largest_empty_positions(gradient, occupied, 50)
    assert found.tolist() == by_sorting(dense, occupied, 50)
    assert len(searches) == (2 if misled == "too high" else 1)


class _Given:
    """A gradient that is a given matrix, NaN and infinities included, in blocks of five rows."""

    def __init__(self, dense: Tensor) -> None:
        self.dense, self.shape = dense, tuple(dense.shape)

    def at(self, positions: Tensor) -> Tensor:
        return self.dense.flatten()[positions]

    def map_blocks(self, function):
        return [function(row, self.dense[row : row + 5].clone()) for row in range(0, 70, 5)]


def test_more_than_the_empty_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="`count` must be at most the 2 empty positions, got 3"):
        largest_empty_positions(gradient_of(torch.ones(2, 3)), torch.arange(4), 3)


@pytest.mark.usefixtures("_restores_threads")
def test_the_number_of_threads_changes_no_choice(monkeypatch) -> None:
    monkeypatch.setattr(search, "BLOCK", 300)
    generator = seeded()
    passes = [[torch.randn(8, width, generator=generator) for width in (70, 60)] for _ in range(2)]
    gradient = CapturedGradient([(dy.round(), x.round()) for dy, x in passes], [1.0, 1.0], (70, 60))
    occupied = torch.arange(0, 4200, 3)
    dense = sum(dy.t() @ x for dy, x in gradient.passes)
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found = largest_empty_positions(gradient, occupied, 500)
        assert found.tolist() == by_sorting(dense, occupied, 500)
        assert torch.get_num_threads() == threads
