"""`layer.weight`: a sparse matrix that is made when its entries are asked for, not before.

Models ask layers for `weight.dtype`, `weight.shape` or `weight.device` at every forward pass. These
cost nothing here, while the matrix takes several times as long as the layer's product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from .._torch_internals import as_described, version_of, without_torch_function

_DESCRIBING: frozenset[Any] = frozenset(
    {
        *(
            getattr(Tensor, name).__get__
            for name in (
                "shape",
                "dtype",
                "device",
                "layout",
                "ndim",
                "requires_grad",
                "is_cpu",
                "is_cuda",
                "is_meta",
                "is_sparse",
            )
        ),
        Tensor.size,
        Tensor.dim,
        Tensor.numel,
        Tensor.nelement,
        Tensor.__len__,
        Tensor.element_size,
        Tensor.is_floating_point,
        Tensor.is_complex,
    }
)
"""What can be answered from shape, dtype and device alone."""


class WeightOnDemand(Tensor):
    """A torch.sparse_coo_tensor that is made by the first function which reads its entries.

    Every function of torch takes it as it takes the matrix, but for a `torch.autograd.Function`,
    which torch hands its arguments to as they are; give it `weight.clone()`.

    Args:
        make: makes the matrix.
        shape: its shape.
        values: its values, which give dtype and device.
        indices: its indices. If either of the two is changed before the matrix is made, it is not
            made any more.
    """

    _make: Callable[[], Tensor]
    _made_of: tuple[tuple[Tensor, int], ...]  # with their versions
    _matrix: Tensor | None

    @staticmethod
    def __new__(
        cls, make: Callable[[], Tensor], shape: tuple[int, int], values: Tensor, indices: Tensor
    ) -> WeightOnDemand:
        """Make a matrix that has a description and no entries yet."""
        weight = as_described(cls, shape, values, torch.sparse_coo)
        weight._make, weight._matrix = make, None
        weight._made_of = tuple((part, version_of(part)) for part in (values, indices))
        return weight

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DESCRIBING:
            with without_torch_function():
                return func(*args, **(kwargs or {}))
        args, kwargs = tree_map_only(WeightOnDemand, WeightOnDemand._made, (args, kwargs or {}))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # a class method, as torch calls it
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        raise RuntimeError(
            f"{func}: `weight` of a sparse layer is made on demand, and this function came to it "
            "in a way that cannot make it: give it `layer.weight.clone()`"
        )

    def _made(self) -> Tensor:
        with without_torch_function():
            if self._matrix is None:
                if any(version_of(part) != version for part, version in self._made_of):
                    raise RuntimeError(
                        "the layer has changed since this `weight` was asked for, and its entries "
                        "were not read before: keep a copy with `layer.weight.clone()`, or ask for "
                        "`layer.weight` again"
                    )
                self._matrix = self._make()
            return self._matrix
