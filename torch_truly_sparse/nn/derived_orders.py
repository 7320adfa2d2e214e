"""What a layer derives from its topology: row pointers, and the transposed order."""

from __future__ import annotations

import warnings
import weakref
from typing import Any

import torch
from torch import Tensor

from ..ops import transforms, transpose
from ..ops.orders import Orders
from ..topology import check_indices

_UNKNOWN = -1
"""The version of what compiled code adopted: the next eager use checks it."""


class DerivedOrders:
    """The orders of one indices tensor in one version, made when they are first needed.

    Args:
        out_features: number of output units.
        in_features: number of input units.

    A copy or a pickle starts empty: what is derived need not travel. A copy knows what it was made
    from, and warns once where another topology was copied over it in place: so the averages of
    `torch.optim.swa_utils` follow an evolution, mixing weights of different connections.
    """

    def __init__(self, out_features: int, in_features: int) -> None:
        self._size = out_features, in_features
        self._indices: Tensor | None = None
        self._version = 0
        self._orders: Orders | None = None
        self._transposed = False  # whether the column order has ever been asked for
        # The indices of a copy as they were copied, and their mark.
        self._copied: tuple[weakref.ref[Tensor], int] | None = None

    def of(self, indices: Tensor, *, transposed: bool = False) -> Orders:
        """Give the orders of `indices`, checking them first if they may have changed.

        Args:
            indices: (2, nnz), usually the tensor that was adopted; any other one takes its place
                (`torch.func.functional_call` lends a layer other tensors).
            transposed: whether the transposed order is needed.

        Raises:
            TypeError, ValueError: they are not a topology.

        Cost: nothing where nothing changed; otherwise O(nnz + out_features + in_features).

        Under `torch.func` and in an exported program nothing is kept, and the transposed order is
        not made. Compiled code notices another tensor and all that is adopted, but not an edit in
        place, for a graph cannot ask a tensor's version.
        """
        compiling = torch.compiler.is_compiling()
        if compiling and torch.compiler.is_exporting():
            return self._derive(indices)  # the program must read the buffer, not what it held
        unchanged = self._orders is not None and indices is self._indices
        if unchanged and not compiling:
            unchanged = _version(indices) == self._version
        if not unchanged:
            derived = self._derive(indices)
            if transforms.active():  # a transform's tensors are not to outlive it
                return derived
            self._keep(indices, derived)
            self._warn_of_averages(indices, derived)
        orders = self._orders
        assert orders is not None
        if transposed and orders.transposed is None and not transforms.active():
            return self._transpose(orders)
        return orders

    def adopt(self, indices: Tensor, crow_indices: Tensor) -> None:
        """Keep a checked topology and its row pointers, and drop what belonged to another.

        Where the transposed order has been asked for before, it is made again at once: compiled
        code then finds everything as it was.

        Args:
            indices: (2, nnz), checked.
            crow_indices: its row pointers.
        """
        orders = Orders(crow_indices, indices[1], self._size[1], None)
        self._copied = None
        self._keep(indices, orders)
        if self._transposed:
            self._transpose(orders)

    def _keep(self, indices: Tensor, orders: Orders) -> None:
        self._indices, self._version, self._orders = indices, _version(indices), orders

    def _transpose(self, orders: Orders) -> Orders:
        with torch.inference_mode(False):  # what is kept must serve training, too
            order = transpose(orders.crow_indices, orders.col_indices, orders.in_features)
        self._orders = orders = orders._replace(transposed=order)
        self._transposed = True
        return orders

    def _derive(self, indices: Tensor) -> Orders:
        checked, crow_indices = check_indices(indices, *self._size)
        return Orders(crow_indices, checked[1], self._size[1], None)

    def forget(self) -> None:
        """Drop everything: the next use checks and derives again."""
        self._indices = self._orders = None

    def _warn_of_averages(self, indices: Tensor, orders: Orders) -> None:
        if torch.compiler.is_compiling() or self._copied is None:
            return
        copied, mark = self._copied
        if indices is copied() and _mark(orders) != mark:
            self._copied = None
            warnings.warn(
                "another topology was copied over that of this copy of a layer. If "
                "torch.optim.swa_utils.AveragedModel did so, its averages are of weights of "
                "different connections: use tts.nn.AveragedModel. If you did, assign "
                "`layer.indices` instead.",
                stacklevel=2,
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> DerivedOrders:
        copied = DerivedOrders(*self._size)
        indices = None if self._indices is None else memo.get(id(self._indices))
        if indices is not None and self._orders is not None and not indices.is_meta:
            copied._copied = weakref.ref(indices), _mark(self._orders)
        return copied

    def __reduce__(self) -> tuple[type[DerivedOrders], tuple[int, int]]:
        return DerivedOrders, self._size


def _mark(orders: Orders) -> int:
    """A number that topologies share only if their units have, in all likelihood, equal fans."""
    crow_indices = orders.crow_indices
    places = torch.arange(crow_indices.shape[0], device=crow_indices.device)
    return int((crow_indices * (places * places + 1)).sum())


def _version(tensor: Tensor) -> int:
    """Count the in-place changes of a tensor; those made in inference mode are not counted."""
    if torch.compiler.is_compiling():
        return _UNKNOWN
    return 0 if tensor.is_inference() else tensor._version
