"""Between a topology with its values and the packed form that inference reads."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.spmm_packed import PLAIN_CODES, SKIP_CODE, packed_columns
from ..topology import Shape, Topology

PACKED_DTYPES = (torch.float32, torch.bfloat16, torch.int8)


class Packed(NamedTuple):
    """A packed matrix, as `ops.spmm_packed` reads it; `scales` of int8 alone."""

    row_pointers: Tensor
    codes: Tensor
    values: Tensor
    scales: Tensor | None


def pack_matrix(topology: Topology, values: Tensor, dtype: torch.dtype) -> Packed:
    """Pack a matrix.

    Args:
        topology: where W has its nonzeros, checked.
        values: (nnz,) float32.
        dtype: of the packed values. int8: each row is divided by its largest magnitude / 127 and
            rounded to the nearest; a row whose largest magnitude is 0, infinite or no number keeps
            a scale of 1, infinity or NaN, so that it stays what it is.

    Cost: O(nnz) time and memory.
    """
    codes, entries, row_pointers = _codes(topology)
    scales = None
    if dtype == torch.int8:
        rows = topology.indices[0].long()
        largest = values.new_zeros(topology.out_features)
        largest = largest.scatter_reduce(0, rows, values.abs(), "amax")
        scales = torch.where(largest == 0, 1.0, largest / 127)
        numbers = (values / scales[rows]).nan_to_num(1, 1, -1).round().clamp(-127, 127)
    else:
        numbers = values
    stored = values.new_zeros(codes.shape[0], dtype=dtype)
    stored[entries] = numbers.to(dtype)
    return Packed(row_pointers, codes, stored, scales)


def unpack_matrix(packed: Packed, shape: Shape) -> tuple[Topology, Tensor]:
    """Return the topology of a packed matrix, checked, and its values in float32.

    Raises:
        ValueError: the codes are not those of a matrix of this shape.
    """
    pointers, codes, values, scales = packed
    if (
        pointers.shape != (shape[0] + 1,)
        or pointers[0] != 0
        or pointers[-1] != codes.shape[0]
        or bool((pointers.diff() < 0).any())
    ):
        raise ValueError(
            f"`row_pointers` must rise from 0 to {codes.shape[0]}, the number of `codes`, in "
            f"{shape[0] + 1} steps"
        )
    rows, columns, real = packed_columns(pointers, codes, shape[1])
    numbers = values.float()
    if real is not None:
        rows, columns, numbers = rows[real], columns[real], numbers[real]
    topology = Topology.from_indices(torch.stack([rows, columns]), shape)
    return topology, numbers if scales is None else numbers * scales[rows]


def _codes(topology: Topology) -> tuple[Tensor, Tensor, Tensor]:
    """Return the codes, the place of each connection among them, and the row pointers."""
    pointers, columns = topology.row_pointers, topology.indices[1].long()
    if topology.in_features <= PLAIN_CODES:
        places = torch.arange(topology.nnz, device=columns.device)
        return columns.to(torch.int16), places, pointers.clone()
    gaps = columns.clone()
    gaps[1:] -= columns[:-1]
    first = pointers[:-1][pointers[:-1] < pointers[1:]]  # of each row that is not empty
    gaps[first] = columns[first]
    skips = gaps.div(SKIP_CODE, rounding_mode="floor")
    ends = (skips + 1).cumsum(0)
    total = int(ends[-1]) if topology.nnz else 0
    codes = torch.full((total,), SKIP_CODE, device=columns.device)
    codes[ends - 1] = gaps - SKIP_CODE * skips
    return codes.to(torch.int16), ends - 1, torch.cat([ends.new_zeros(1), ends])[pointers]
