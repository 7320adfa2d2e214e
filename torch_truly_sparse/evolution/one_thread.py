"""Sums of torch's own whose bits do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
