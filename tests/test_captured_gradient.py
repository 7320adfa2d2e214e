"""A captured gradient comes in blocks: their sum, their memory, their threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from evolving_network import seeded
from torch import Tensor

from torch_truly_sparse.evolution import CapturedGradient, captured_gradient


def test_several_passes_add_up_scaled() -> None:
    generator = seeded()
    passes = [
        (torch.randn(4, 7, generator=generator), torch.randn(4, 5, generator=generator))
        for _ in range(3)
    ]
    gradient = CapturedGradient(passes, [1.0, 0.5, -2.0], 7, 5, reduce=lambda block: block * 2)
    dense = 2 * sum(
        scale * dy.t() @ x for scale, (dy, x) in zip([1.0, 0.5, -2.0], passes, strict=True)
    )
    blocks = torch.cat([block for _, block in gradient.blocks()])
    torch.testing.assert_close(blocks, dense)
    some = torch.tensor([0, 3, 4, 17, 34])
    torch.testing.assert_close(gradient.at(some), dense.flatten()[some])


def test_blocks_share_one_buffer_of_bounded_size() -> None:
    gradient = CapturedGradient([(torch.ones(1, 1000), torch.ones(1, 3000))], [1.0], 1000, 3000)
    pointers = set()
    for first, block in gradient.blocks():
        pointers.add(block.data_ptr())
        assert block.numel() <= captured_gradient.BLOCK
        rows = first + block.shape[0]
    assert rows == 1000
    assert len(pointers) == 1


@pytest.mark.usefixtures("_restores_threads")
@pytest.mark.parametrize("size", [(7, 5000), (300, 64)], ids=str)
def test_the_number_of_threads_changes_no_bit(size: tuple[int, int]) -> None:
    generator = seeded()
    passes = [[torch.randn(128, width, generator=generator) for width in size] for _ in range(2)]
    gradient = CapturedGradient([(dy, x) for dy, x in passes], [1.0, 0.9], *size)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append(torch.cat([block.clone() for _, block in gradient.blocks()]))
        assert torch.get_num_threads() == threads
    assert all(torch.equal(results[0], result) for result in results)


@pytest.mark.usefixtures("_restores_threads")
def test_blocks_on_threads_come_in_order_from_bounded_memory(monkeypatch) -> None:
    monkeypatch.setattr(captured_gradient, "BLOCK", 30)
    gradient = CapturedGradient([(torch.ones(1, 300), torch.ones(1, 10))], [1.0], 300, 10)
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
    monkeypatch.setattr(captured_gradient, "BLOCK", 30)
    gradient = CapturedGradient([(torch.ones(1, 300), torch.ones(1, 10))], [1.0], 300, 10)
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
    monkeypatch.setattr(captured_gradient, "BLOCK", 30)
    summed = []

    def reduce(block: Tensor) -> Tensor:
        summed.append((threading.get_ident(), int(block[0, 0])))
        return block

    rows = torch.arange(300.0)[None]
    gradient = CapturedGradient([(rows, torch.ones(1, 10))], [1.0], 300, 10, reduce)
    torch.set_num_threads(3)
    assert list(gradient.map_blocks(lambda first, block: first)) == list(range(0, 300, 3))
    assert summed == [(threading.get_ident(), first) for first in range(0, 300, 3)]
