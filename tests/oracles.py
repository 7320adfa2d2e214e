"""What the tests compare with: dense matrices, plain torch, float64."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torch_truly_sparse import Topology
from torch_truly_sparse.ops import CsrParts

TESTS = Path(__file__).parent
INDEX_DTYPES = [torch.int32, torch.int64]
VALUE_DTYPES = [torch.float32, torch.float64]
# Around every tile width (1, 2, 4, 8, 16), and more than two of the widest.
BATCHES = [0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 33]


@dataclass(frozen=True)
class Matrix:
    """A sparse matrix in every form that the operators know, made without them."""

    dense: Tensor  # (out_features, in_features), zeros where there is no connection
    indices: Tensor  # (2, nnz)
    crow: Tensor
    col: Tensor
    values: Tensor
    ccol: Tensor
    row: Tensor
    permutation: Tensor

    @classmethod
    def of_mask(
        cls, mask: Tensor, dtype: torch.dtype = torch.float32, index: torch.dtype = torch.int32
    ) -> Matrix:
        dense = torch.where(mask, torch.randn(mask.shape, dtype=dtype), 0)
        rank = torch.zeros(mask.shape, dtype=torch.int64)
        rank[mask] = torch.arange(int(mask.sum()))
        return cls(
            dense=dense,
            indices=mask.nonzero().t().contiguous().to(index),
            crow=_pointers(mask.sum(1)),
            col=mask.nonzero()[:, 1].to(index),
            values=dense[mask],
            ccol=_pointers(mask.sum(0)),
            row=mask.t().nonzero()[:, 1].to(index),
            permutation=rank.t()[mask.t()].to(index),
        )

    @property
    def topology(self) -> Topology:
        """As the package makes it, from the same coordinates."""
        return Topology.from_indices(self.indices, tuple(self.dense.shape))

    @property
    def parts(self) -> CsrParts:
        """Taken apart, with the order by columns: made without the package's operators."""
        return CsrParts(
            self.crow, self.col, self.dense.shape[1], self.ccol, self.row, self.permutation
        )


def _pointers(counts: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])


def masks() -> dict[str, Tensor]:
    """Shapes times densities: none, one, some, with empty rows and columns, all."""
    table = {}
    for out_features, in_features in [(1, 1), (1, 9), (9, 1), (5, 4), (17, 33)]:
        size = (out_features, in_features)
        generator = torch.Generator().manual_seed(out_features * in_features)
        typical = torch.rand(size, generator=generator) < 0.3
        holes = torch.ones(size, dtype=torch.bool)
        holes[::2] = holes[:, -1] = False
        one = torch.zeros(size, dtype=torch.bool)
        one[-1, in_features // 2] = True
        kinds = {
            "none": torch.zeros_like(one),
            "one": one,
            "typical": typical,
            "holes": holes,
            "all": torch.ones_like(one),
        }
        for kind, mask in kinds.items():
            table[f"{out_features}x{in_features}-{kind}"] = mask
    for size in [(0, 3), (3, 0), (0, 0)]:
        table[f"{size[0]}x{size[1]}"] = torch.ones(size, dtype=torch.bool)
    return table


MASKS = masks()


def random_mask(out_features: int, in_features: int, nnz: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(out_features * in_features, dtype=torch.bool)
    mask[torch.randperm(mask.numel(), generator=generator)[:nnz]] = True
    return mask.view(out_features, in_features)


def spread(tensor: Tensor) -> Tensor:
    """The same vector with a gap between its entries."""
    return tensor.repeat_interleave(2)[::2]


def assert_sums_close(
    actual: Tensor, expected: Tensor, magnitude: Tensor, terms: int, *, steps: int = 1
) -> None:
    """Compare sums of `terms` products with their float64 value.

    Summed in any order, the error is at most (terms + 1) epsilon times the sum of the absolute
    products, `magnitude`; twice that, for the oracle rounds as well.
    """
    assert actual.shape == expected.shape
    epsilon = torch.finfo(actual.dtype).eps
    bound = 2 * steps * (terms + 1) * epsilon * magnitude.double()
    excess = (actual.double() - expected.double()).abs() - bound
    assert not excess.isnan().any()
    assert (excess <= 0).all(), f"off by {excess.max():.3g} more than rounding explains"


def assert_product_close(
    actual: Tensor,
    a: Tensor,
    b: Tensor,
    *,
    plus: Tensor | None = None,
    at: Tensor | None = None,
) -> None:
    """`actual` is a @ b (+ plus), or its entries under the mask `at`, to rounding."""
    a, b = a.double(), b.double()
    expected, magnitude = a @ b, a.abs() @ b.abs()
    if plus is not None:
        expected, magnitude = expected + plus.double(), magnitude + plus.double().abs()
    if at is not None:
        expected, magnitude = expected[at], magnitude[at]
    assert_sums_close(actual, expected, magnitude, a.shape[1])


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal to the bit: -0.0 differs from 0.0, and NaN equals itself."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def _bytes(tensor: Tensor) -> Tensor:
    resolved = tensor.detach().resolve_conj().resolve_neg()
    return resolved.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


def all_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)


def valid_topology(indices: Tensor, out_features: int, in_features: int) -> bool:
    """In range, sorted row-major, unique."""
    rows, columns = indices.long()
    inside = (rows >= 0) & (rows < out_features) & (columns >= 0) & (columns < in_features)
    increasing = (rows * in_features + columns).diff() > 0
    return bool(inside.all() and increasing.all())


def z_of_chi_square(observed: Tensor, expected: Tensor | float, freedom: int) -> float:
    """How many standard deviations Pearson's statistic lies from its mean."""
    statistic = ((observed.double() - expected) ** 2 / expected).sum().item()
    return (statistic - freedom) / (2 * freedom) ** 0.5


def subset_frequencies(draws: list[Tensor], population: int) -> Tensor:
    """How often each subset was drawn, for every subset that can be."""
    count = draws[0].shape[0]
    codes = torch.stack(draws).new_tensor(2).pow(torch.stack(draws)).sum(1)
    subsets = [
        sum(bit << i for i, bit in enumerate(bits))
        for bits in product([0, 1], repeat=population)
        if sum(bits) == count
    ]
    return torch.bincount(codes, minlength=2**population)[torch.tensor(subsets)]


class OperatorLog(TorchDispatchMode):
    """Notes which of the package's operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        namespace, _, name = function.name().partition("::")
        if namespace == "torch_truly_sparse":
            self.names.append(name)
        return function(*args, **(kwargs or {}))


def by_sorting(dense: Tensor, occupied: Tensor, count: int) -> list[int]:
    """The oracle: sort all empty positions by |gradient|, of equal ones the first ones first."""
    empty = sorted(set(range(dense.numel())) - set(occupied.tolist()))
    magnitudes = dense.flatten().abs().nan_to_num(nan=0.0, posinf=torch.inf).tolist()
    return sorted(sorted(empty, key=lambda p: -magnitudes[p])[:count])
