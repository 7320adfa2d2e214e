"""The gradient at every position of a layer, from the passes that make it up, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..ops import sddmm
from ..topology import check_indices, from_positions
from .one_thread import map_in_order, one_thread

# Averages a block of gradients across processes; the result may be the block itself.
Reduce = Callable[[Tensor], Tensor]

# Numbers in a block: 1 MiB in float32, so that what the product wrote is still in the second-level
# cache when it is searched.
BLOCK = 2**18

# A thread takes a tenth of a millisecond to start and end, a block of a large layer several: for
# fewer blocks than this it is not worth it.
BLOCKS_A_THREAD = 4

_Result = TypeVar("_Result")


def identity(block: Tensor) -> Tensor:
    """Leave a block as it is: there is one process."""
    return block


@dataclass(frozen=True)
class Pass:
    """One backward pass through a layer.

    Attributes:
        input: (*, in_features).
        grad_output: (*, out_features) gradient of the loss in the layer's output.
        version: of `input` in the forward pass, or None where torch counts none.
    """

    input: Tensor
    grad_output: Tensor
    version: int | None = None

    @property
    def overwritten(self) -> bool:
        """Whether the input has been changed in place since the forward pass."""
        return self.version is not None and self.version != self.input._version


@dataclass(frozen=True)
class CapturedGradient:
    """The weight gradient of a layer, `sum of dY.T @ X over passes`, at every position.

    Attributes:
        passes: (batch, out_features) output gradient and (batch, in_features) input of each.
        scales: what each counts.
        out_features, in_features: the layer's.
        reduce: averages a block across processes.
    """

    passes: Sequence[tuple[Tensor, Tensor]]
    scales: Sequence[float]
    out_features: int
    in_features: int
    reduce: Reduce = identity

    @classmethod
    def of(
        cls,
        passes: Sequence[tuple[float, Pass]],
        out_features: int,
        in_features: int,
        dtype: torch.dtype,
        reduce: Reduce = identity,
    ) -> CapturedGradient:
        """Bring passes of any leading dimensions and dtype (bfloat16, float16) into one form."""
        pairs = [
            (
                each.grad_output.reshape(-1, out_features).to(dtype),
                each.input.reshape(-1, in_features).to(dtype),
            )
            for _, each in passes
        ]
        return cls(pairs, [scale for scale, _ in passes], out_features, in_features, reduce)

    def at(self, positions: Tensor) -> Tensor:
        """Compute the gradient at some positions.

        Args:
            positions: (n,) int64, increasing.

        Returns:
            (n,), new memory.

        Cost: O(n batch).
        """
        indices = from_positions(positions, self.out_features, self.in_features)
        indices, crow_indices = check_indices(indices, self.out_features, self.in_features)
        total = torch.zeros(positions.shape, dtype=self._dtype, device=positions.device)
        for (grad_output, input), scale in zip(self.passes, self.scales, strict=True):
            total.add_(sddmm(grad_output, input, crow_indices, indices[1]), alpha=scale)
        return self.reduce(total)

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
            yield first, self.reduce(block)

    def map_blocks(self, function: Callable[[int, Tensor], _Result]) -> Iterator[_Result]:
        """Call `function(first row, block)` for the blocks of `blocks`; side by side on threads.

        A block is computed as ever, by one thread, so no bit depends on how many there are; they
        take different blocks. Where blocks are summed across processes, the order of the sums must
        be the same in all of them, and there is one thread.

        Args:
            function: called by any thread, also by several at once; the block is overwritten once
                it returns.

        Yields:
            What the function returned, in the order of the blocks.

        Cost: as `blocks`; a block of memory for each thread, and the results of as many blocks.
        """
        ranges = self._row_ranges()
        threads = min(torch.get_num_threads(), len(ranges) // BLOCKS_A_THREAD)
        if threads < 2 or self.reduce is not identity:
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

    def _row_ranges(self) -> list[tuple[int, int]]:
        """Give the first row of each block, and the first one after it."""
        if not self.in_features:
            return []
        rows = self._block_rows
        return [
            (first, min(first + rows, self.out_features))
            for first in range(0, self.out_features, rows)
        ]

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
        size = (self._block_rows, self.in_features)
        return torch.empty(size, dtype=self._dtype, device=self.passes[0][0].device)

    @property
    def _block_rows(self) -> int:
        return min(max(BLOCK // max(self.in_features, 1), 1), self.out_features)

    @property
    def _dtype(self) -> torch.dtype:
        return self.passes[0][0].dtype
