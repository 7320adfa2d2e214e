"""The nonzeros of one topology in both orders, as the differentiable products take them."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from .transpose import TransposedOrder


class Orders(NamedTuple):
    """The nonzeros of one topology in both orders.

    Attributes:
        crow_indices: (out_features + 1,) int64 row pointers.
        col_indices: (nnz,) column of each nonzero, in row order.
        in_features: number of columns.
        transposed: the column order, or None: input gradients do without it, and are slower for
            large batches.
    """

    crow_indices: Tensor
    col_indices: Tensor
    in_features: int
    transposed: TransposedOrder | None


ORDERS = 6
"""How many arguments an `Orders` is to an autograd function, which takes tensors one by one."""


def flatten(orders: Orders) -> tuple[Any, ...]:
    """Give an `Orders` as the arguments of an autograd function."""
    crow_indices, col_indices, in_features, transposed = orders
    return (crow_indices, col_indices, in_features, *(transposed or (None, None, None)))


def keep(ctx: Any, operands: tuple[Tensor, ...], orders: tuple[Any, ...]) -> None:
    """Save operands and flattened orders for the backward pass."""
    crow_indices, col_indices, in_features, *transposed = orders
    ctx.in_features = in_features
    ctx.save_for_backward(*operands, crow_indices, col_indices, *transposed)


def kept(ctx: Any) -> tuple[tuple[Tensor, Tensor], Orders]:
    """Give back the two operands and the orders that `keep` saved."""
    first, second, crow_indices, col_indices, *transposed = ctx.saved_tensors
    order = None if transposed[0] is None else TransposedOrder(*transposed)
    return (first, second), Orders(crow_indices, col_indices, ctx.in_features, order)
