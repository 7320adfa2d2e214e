"""Results of a layer lie in memory that is kept and handed out again: nobody may notice."""

from __future__ import annotations

import gc
import threading

import torch

from torch_truly_sparse import TrulySparseLinear

BATCH, WIDTH = 64, 1200  # results of 300 kB: large enough to be kept


def layer(seed: int = 0) -> TrulySparseLinear:
    generator = torch.Generator().manual_seed(seed)
    return TrulySparseLinear(WIDTH, WIDTH, density=0.1, generator=generator)


def test_results_that_live_share_no_memory():
    sparse, x = layer(), torch.randn(BATCH, WIDTH)
    results = [sparse(x + i) for i in range(5)]
    expected = [torch.nn.functional.linear(x + i, sparse.to_dense().weight) for i in range(5)]
    assert len({r.data_ptr() for r in results}) == 5
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted + sparse.bias, atol=1e-4, rtol=1e-4)


def test_a_view_keeps_its_memory_when_the_result_is_gone():
    sparse, x = layer(), torch.randn(BATCH, WIDTH)
    with torch.no_grad():
        view = sparse(x)[3:5]
        before = view.clone()
        gc.collect()
        for _ in range(5):
            sparse(torch.full_like(x, 7.0))
    assert torch.equal(view, before)


def test_a_training_step_takes_the_memory_of_those_before():
    sparse, x = layer(), torch.randn(BATCH, WIDTH, requires_grad=True)
    seen = []
    for _ in range(40):
        sparse.zero_grad()
        x.grad = None
        sparse(x).sum().backward()
        seen.append({sparse.values.grad.data_ptr(), x.grad.data_ptr()})
    # Blocks of about this size that other tests left are taken in turn with those of this one.
    assert set.union(*seen[20:]) <= set.union(*seen[:20])


def test_gradients_accumulate_and_results_move_like_any_tensor():
    sparse, x = layer(), torch.randn(BATCH, WIDTH)
    sparse(x).sum().backward()
    once = sparse.values.grad.clone()
    sparse(x).sum().backward()
    torch.testing.assert_close(sparse.values.grad, 2 * once)
    result = sparse(x).detach()
    before = result.clone()
    assert torch.equal(result.share_memory_(), before)
    assert torch.equal(torch.from_numpy(result.numpy()), before)


def test_threads_that_take_and_give_back_at_once():
    sparse, x = layer(), torch.randn(BATCH, WIDTH)
    with torch.no_grad():
        expected = [sparse(x * i) for i in range(4)]
    wrong = []

    def work(i: int) -> None:
        with torch.no_grad():
            for _ in range(20):
                if not torch.equal(sparse(x * i), expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
