"""The gradient at every position of a layer, in blocks, and the search for its largest entries."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ...ops import empty_above, empty_positions, keep_largest, sample, sddmm
from ...topology import Shape, Topology
from .capture import Pass

# Averages a block of gradients across processes; the result may be the block itself.
Reduce = Callable[[Tensor], Tensor]

# Numbers in a block: 1 MiB in float32, so that what the product wrote is still in the second-level
# cache when it is searched.
BLOCK = 2**18

# Positions whose gradients give the search its first threshold; its result is exact in any case.
SAMPLE = 2**16

# A thread takes a tenth of a millisecond to start and end, and a block of a large layer takes
# several milliseconds: with fewer blocks than this for each thread, another thread does not pay.
BLOCKS_A_THREAD = 4

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class CapturedGradient:
    """The weight gradient of a layer, `sum of dY.T @ X over passes`, at every position.

    Attributes:
        passes: (batch, out_features) output gradient and (batch, in_features) input of each.
        scales: the factor of each pass in the sum.
        shape: (out_features, in_features) of the layer.
        reduce: averages a block across processes; None where there is one process.
    """

    passes: Sequence[tuple[Tensor, Tensor]]
    scales: Sequence[float]
    shape: Shape
    reduce: Reduce | None = None

    @classmethod
    def of(
        cls,
        passes: Sequence[tuple[float, Pass]],
        shape: Shape,
        dtype: torch.dtype,
        reduce: Reduce | None = None,
    ) -> CapturedGradient:
        """Bring passes of any leading dimensions and dtype (bfloat16, float16) into one form."""
        out_features, in_features = shape
        pairs = [
            (
                each.grad_output.reshape(-1, out_features).to(dtype),
                each.input.reshape(-1, in_features).to(dtype),
            )
            for _, each in passes
        ]
        return cls(pairs, [scale for scale, _ in passes], shape, reduce)

    def at(self, positions: Tensor) -> Tensor:
        """Compute the gradient at some positions.

        Args:
            positions: (n,) int64, increasing.

        Returns:
            (n,), new memory.

        Cost: O(n batch + out_features).
        """
        topology = Topology.from_positions(positions, self.shape)
        total = torch.zeros(positions.shape, dtype=self._dtype, device=positions.device)
        for (grad_output, input), scale in zip(self.passes, self.scales, strict=True):
            total.add_(sddmm(topology, grad_output, input), alpha=scale)
        return self._reduced(total)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Compute the gradient of all positions, some output rows at a time.

        Yields:
            The first row of a block, and the block (rows, in_features), which is overwritten by
            the next one.

        Cost: O(out_features in_features batch) time, as for a dense layer; memory for one block of
        about 1 MiB, and at least one row. The product runs on one thread: see `one_thread`.
        """
        buffer = self._buffer()
        for first, last in self._row_ranges():
            block = buffer[: last - first]
            with one_thread():
                self._multiply(first, block)
            yield first, self._reduced(block)

    def map_blocks(self, function: Callable[[int, Tensor], _Result]) -> Iterator[_Result]:
        """Call `function(first row, block)` on each block that `blocks` yields, on several threads.

        Each block is computed by one thread, so the results do not depend on the number of threads.
        Where `reduce` averages blocks across processes, the calling thread computes all blocks,
        because every process must average them in one order.

        Args:
            function: called by several threads at once. Its block is overwritten once it returns.

        Yields:
            What the function returned, in the order of the blocks.

        Cost: as `blocks`; memory for one block, and one result, for each thread.
        """
        ranges = self._row_ranges()
        threads = min(torch.get_num_threads(), len(ranges) // BLOCKS_A_THREAD)
        if threads < 2 or self.reduce is not None:
            yield from (function(first, block) for first, block in self.blocks())
            return
        buffers = [self._buffer() for _ in range(threads)]

        def compute(first: int, last: int) -> _Result:
            buffer = buffers.pop()  # a list hands out and takes back without a lock of ours
            try:
                block = buffer[: last - first]
                with torch.no_grad():
                    self._multiply(first, block)
                    return function(first, block)
            finally:
                buffers.append(buffer)

        yield from map_in_order(compute, ranges, threads)

    def _reduced(self, block: Tensor) -> Tensor:
        return block if self.reduce is None else self.reduce(block)

    def _row_ranges(self) -> list[tuple[int, int]]:
        """Give the first row of each block, and the first one after it."""
        out_features, in_features = self.shape
        if not in_features:
            return []
        rows = self._block_rows
        return [(first, min(first + rows, out_features)) for first in range(0, out_features, rows)]

    def _multiply(self, first: int, block: Tensor) -> None:
        """Write the gradient of the rows from `first` on into a block."""
        last = first + block.shape[0]
        for number, (grad_output, input) in enumerate(self.passes):
            torch.addmm(
                block,
                grad_output[:, first:last].t(),
                input,
                beta=1 if number else 0,
                alpha=self.scales[number],
                out=block,
            )

    def _buffer(self) -> Tensor:
        size = (self._block_rows, self.shape[1])
        return torch.empty(size, dtype=self._dtype, device=self.passes[0][0].device)

    @property
    def _block_rows(self) -> int:
        out_features, in_features = self.shape
        return min(max(BLOCK // max(in_features, 1), 1), out_features)

    @property
    def _dtype(self) -> torch.dtype:
        return self.passes[0][0].dtype


def largest_empty_positions(gradient: CapturedGradient, occupied: Tensor, count: int) -> Tensor:
    """Find the `count` empty positions whose gradients are the largest by absolute value.

    Of equal ones those with the lowest positions are taken; NaN counts as 0.

    Args:
        gradient: at every position of the layer.
        occupied: (n,) int64 positions that are not empty, increasing.
        count: how many to find, at most the number of empty positions.

    Returns:
        (count,) int64, increasing, new memory.

    Raises:
        ValueError: there are fewer empty positions.

    Cost: O(out_features in_features batch) time; O(n + count) memory and a block for each thread.
    """
    if not count:
        return occupied.new_empty(0)
    best = _search(gradient, occupied, count, _probable_bound(gradient, occupied, count))
    if not best.complete:  # too few exceed the bound, so that it says nothing
        best = _search(gradient, occupied, count, -1.0)
    return best.positions()


def _search(
    gradient: CapturedGradient, occupied: Tensor, count: int, bound: float
) -> _RunningLargest:
    """Keep the `count` largest of the gradients that exceed a bound by absolute value."""
    best = _RunningLargest(count, bound)
    out_features, in_features = gradient.shape
    ends = torch.arange(out_features + 1, device=occupied.device)
    row_ends = torch.searchsorted(occupied, ends.mul_(in_features)).tolist()

    def search(first: int, block: Tensor) -> tuple[Tensor, Tensor]:
        inside = occupied[row_ends[first] : row_ends[first + block.shape[0]]]
        # The threshold of any moment will do: a lower one lets pass what is sorted out later.
        return empty_above(block.reshape(-1), first * in_features, inside, best.threshold)

    for found in gradient.map_blocks(search):
        best.add(*found)
    return best


def _probable_bound(gradient: CapturedGradient, occupied: Tensor, count: int) -> float:
    """Return a number that the `count` largest gradients probably exceed; -1 where it is not known.

    Without a bound all of the first blocks pass the search, and sorting them out takes longer than
    to compute them (measured: 55 of 70 ms for 4096 x 4096, batch 64, density .05). The bound is
    taken from the gradients at `SAMPLE` random empty positions, always the same ones.
    """
    out_features, in_features = gradient.shape
    empty = out_features * in_features - occupied.shape[0]
    if empty < 16 * SAMPLE:
        return -1.0
    # So many of the sample are among the `count` largest, give or take four deviations.
    expected = SAMPLE * count / empty
    rank = math.ceil(expected + 4 * math.sqrt(expected)) + 4
    if rank > SAMPLE // 2:
        return -1.0
    ranks = sample(empty, SAMPLE, seed=0).to(occupied.device)
    magnitudes = gradient.at(empty_positions(occupied, ranks)).abs_()
    magnitudes.nan_to_num_(nan=0.0, posinf=torch.inf)
    return float(magnitudes.kthvalue(SAMPLE - rank + 1).values)


class _RunningLargest:
    """Keeps the `count` largest numbers of a stream whose positions increase.

    Whenever three times as many have been found, all but the largest are dropped: so each number
    costs O(1).
    """

    def __init__(self, count: int, threshold: float) -> None:
        self._count = count
        self._found: list[tuple[Tensor, Tensor]] = []
        self._total = 0
        self.threshold = threshold

    @property
    def complete(self) -> bool:
        """Whether `count` numbers exceeded the threshold."""
        return self._total >= self._count

    def add(self, positions: Tensor, magnitudes: Tensor) -> None:
        """Add numbers, whose positions come after all earlier ones."""
        self._found.append((positions, magnitudes))
        self._total += positions.shape[0]
        if self._total >= 3 * self._count:
            self._sort_out()

    def positions(self) -> Tensor:
        """Give the positions of the largest, increasing."""
        if self._total < self._count:
            raise ValueError(
                f"`count` must be at most the {self._total} empty positions, got {self._count}"
            )
        self._sort_out()
        return self._found[0][0]

    def _sort_out(self) -> None:
        positions, magnitudes = (torch.cat(parts) for parts in zip(*self._found, strict=True))
        # The first of equal ones are kept, and what comes later must exceed the least of them.
        magnitudes, positions = keep_largest(magnitudes, positions, self._count)
        self._found = [(positions, magnitudes)]
        self._total = self._count
        self.threshold = float(magnitudes.min())


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside a `with` block.

    torch splits large sums and products between threads (a product of 7 x 128 x 5,000, a sum of
    100,000), so that their bits, and with them the choice between nearly equal candidates, would
    depend on the number of threads. The switch takes less than a microsecond.
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
    """Call a function with each of several arguments, on several threads.

    Each call runs as under `one_thread`. Python threads suffice, because torch releases the global
    interpreter lock while it computes.

    Args:
        function: called as `function(*each)`, by at most `threads` threads at once.
        arguments: the arguments of each call.
        threads: number of threads.

    Yields:
        The results, in the order of the arguments. At most `threads` + 1 calls run or wait to be
        fetched.
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
