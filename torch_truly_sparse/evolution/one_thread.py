"""Sums of torch's own whose bits do not depend on the number of threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_Result = TypeVar("_Result")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread.

    Its sums and products split between threads where that seems to pay (a product of 7 x 128 x
    5,000, a sum of 100,000), so that their bits, and with them the choice between nearly equal
    candidates, follow from the number of threads. The switch takes less than a microsecond.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def map_in_order(
    function: Callable[..., _Result], arguments: Iterable[tuple[int, ...]], threads: int
) -> Iterator[_Result]:
    """Call a function several times side by side, each call as under `one_thread`.

    torch lets go of the interpreter while it computes, so that Python's threads do.

    Args:
        function: called as `function(*each)`, by at most `threads` threads at once.
        arguments: of each call.
        threads: how many.

    Yields:
        The results, in the order of the arguments. At most one more than there are threads wait.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[_Result]] = deque()
    try:
        for each in arguments:
            waiting.append(pool.submit(function, *each))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        # A thread's own number is also what torch gives to threads that are yet to come.
        torch.set_num_threads(before)
