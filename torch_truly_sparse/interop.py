"""Conversion to and from the sparse matrices of torch.sparse, torch-sparse and SciPy.

Each matrix is the weight matrix W (out_features, in_features) of a layer; the bias is passed
separately. An exported matrix is a copy without gradient and keeps explicit zeros. An imported
matrix may be unsorted; entries that occur more than once are refused, or added up with
`coalesce=True`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .nn import TrulySparseLinear
from .topology import Topology

if TYPE_CHECKING:
    import scipy.sparse
    import torch_sparse

__all__ = [
    "from_scipy",
    "from_torch_coo",
    "from_torch_csr",
    "from_torch_sparse",
    "to_scipy_csr",
    "to_torch_coo",
    "to_torch_csr",
    "to_torch_sparse",
]


def to_torch_coo(layer: TrulySparseLinear) -> Tensor:
    """Copy W into a coalesced `torch.sparse_coo_tensor`.

    Args:
        layer: the layer whose W is copied.

    Returns:
        (out_features, in_features) of the dtype and device of `layer.values`, new memory. torch
        widens the indices to int64.

    Raises:
        TypeError: `layer` is not a TrulySparseLinear.
        ValueError: `layer.indices` have been changed and are no valid topology.

    Cost: O(nnz).

    Example:
        >>> layer = TrulySparseLinear(20, 30, density=0.1)
        >>> back = from_torch_coo(to_torch_coo(layer), bias=layer.bias)
        >>> torch.equal(back.indices, layer.indices), torch.equal(back.values, layer.values)
        (True, True)
    """
    return _checked(layer).weight.detach()  # a copy already


def from_torch_coo(
    matrix: Tensor, *, bias: Tensor | None = None, coalesce: bool = False
) -> TrulySparseLinear:
    """Make a layer of a `torch.sparse_coo_tensor`, coalesced or not.

    Args:
        matrix: (out_features, in_features), float32 or float64.
        bias: (out_features,) of the dtype of `matrix`, or None for a layer without a bias.
        coalesce: whether to add up the values of entries that occur more than once, as torch does;
            otherwise such entries are refused.

    Returns:
        A new layer on the device and of the dtype of `matrix`; everything is copied.

    Raises:
        TypeError: `matrix` has another type or dtype.
        ValueError: `matrix` is not two-dimensional, an index is out of range, entries occur more
            than once, or the shape of `bias` does not fit.

    Cost: O(nnz + out_features) if the entries are sorted, as in a coalesced matrix; otherwise
    O(nnz log nnz + out_features).
    """
    if not isinstance(matrix, Tensor) or matrix.layout != torch.sparse_coo:
        raise TypeError(f"`matrix` must be a torch.sparse_coo tensor, got {_what(matrix)}")
    if matrix.sparse_dim() != 2 or matrix.dense_dim() != 0:
        raise ValueError(
            "`matrix` must have two sparse dimensions and no dense one, got "
            f"{matrix.sparse_dim()} and {matrix.dense_dim()}"
        )
    return _layer(
        matrix._indices(), matrix._values(), tuple(matrix.shape), bias=bias, coalesce=coalesce
    )


def to_torch_csr(layer: TrulySparseLinear) -> Tensor:
    """Copy W into a `torch.sparse_csr_tensor`, whose indices have the layer's dtype.

    Args:
        layer: the layer whose W is copied.

    Returns:
        (out_features, in_features), new memory.

    Raises:
        TypeError, ValueError: as for `to_torch_coo`.

    Cost: O(nnz + out_features).
    """
    layer = _checked(layer)
    topology = layer.topology
    return torch.sparse_csr_tensor(
        topology.row_pointers.to(topology.indices.dtype, copy=True),
        topology.indices[1].clone(),
        layer.values.detach().clone(),
        topology.shape,
        device=layer.values.device,
        check_invariants=False,
    )


def from_torch_csr(
    matrix: Tensor, *, bias: Tensor | None = None, coalesce: bool = False
) -> TrulySparseLinear:
    """Make a layer of a `torch.sparse_csr_tensor` with int32 or int64 indices.

    Args, Returns, Raises: as for `from_torch_coo`.

    Cost: O(nnz + out_features); O(nnz log nnz + out_features) if a row is unsorted.
    """
    if not isinstance(matrix, Tensor) or matrix.layout != torch.sparse_csr:
        raise TypeError(f"`matrix` must be a torch.sparse_csr tensor, got {_what(matrix)}")
    if matrix.dim() != 2 or matrix.values().dim() != 1:
        raise ValueError(
            f"`matrix` must have two dimensions and no dense one, got {tuple(matrix.shape)}"
        )
    indices = _of_rows(matrix.crow_indices(), matrix.col_indices())
    return _layer(indices, matrix.values(), tuple(matrix.shape), bias=bias, coalesce=coalesce)


def to_torch_sparse(layer: TrulySparseLinear) -> torch_sparse.SparseTensor:
    """Copy W into a `torch_sparse.SparseTensor`.

    Args:
        layer: the layer whose W is copied.

    Returns:
        A matrix of sparse sizes (out_features, in_features), in new memory. Its indices are int64,
        the only dtype that torch-sparse has for them.

    Raises:
        ImportError: torch-sparse is not installed.
        TypeError, ValueError: as for `to_torch_coo`.

    Cost: O(nnz).
    """
    library = _torch_sparse()
    layer = _checked(layer)
    topology = layer.topology
    row, column = topology.indices.long()
    matrix: torch_sparse.SparseTensor = library.SparseTensor(
        row=row.clone(),
        col=column.clone(),
        value=layer.values.detach().clone(),
        sparse_sizes=topology.shape,
        is_sorted=True,
    )
    return matrix


def from_torch_sparse(
    matrix: torch_sparse.SparseTensor, *, bias: Tensor | None = None, coalesce: bool = False
) -> TrulySparseLinear:
    """Make a layer of a `torch_sparse.SparseTensor` that has values.

    Args, Returns, Raises: as for `from_torch_coo`; ImportError if torch-sparse is not installed,
    TypeError if `matrix` has no values.

    Cost: O(nnz + out_features), for such a matrix is sorted.
    """
    library = _torch_sparse()
    if not isinstance(matrix, library.SparseTensor):
        raise TypeError(f"`matrix` must be a torch_sparse.SparseTensor, got {_what(matrix)}")
    row, column, values = matrix.coo()
    if values is None:
        raise TypeError("`matrix` has no values: give it some with `matrix.fill_value(1.0)`")
    if values.dim() != 1:
        raise ValueError(
            "`matrix` must have one value for each entry, got values of shape "
            f"{tuple(values.shape)}"
        )
    shape = (matrix.sparse_size(0), matrix.sparse_size(1))
    return _layer(torch.stack([row, column]), values, shape, bias=bias, coalesce=coalesce)


def to_scipy_csr(layer: TrulySparseLinear) -> scipy.sparse.csr_array:
    """Copy W into a `scipy.sparse.csr_array`, whose indices have the layer's dtype.

    Args:
        layer: the layer whose W is copied, on the CPU.

    Returns:
        (out_features, in_features), new memory.

    Raises:
        ImportError: SciPy is not installed.
        TypeError, ValueError: as for `to_torch_coo`; TypeError if the layer is not on the CPU.

    Cost: O(nnz + out_features).
    """
    library = _scipy_sparse()
    layer = _checked(layer)
    if layer.values.device.type != "cpu":
        raise TypeError(f"`layer` must be on the CPU, got {layer.values.device}: use `.cpu()`")
    topology = layer.topology
    matrix = library.csr_array(
        (
            layer.values.detach().numpy().copy(),
            topology.indices[1].numpy().copy(),
            topology.row_pointers.to(topology.indices.dtype).numpy().copy(),
        ),
        shape=topology.shape,
    )
    matrix.has_canonical_format = True  # sorted and unique
    return matrix


def from_scipy(
    matrix: scipy.sparse.sparray, *, bias: Tensor | None = None, coalesce: bool = False
) -> TrulySparseLinear:
    """Make a layer of a SciPy sparse array or matrix of any format.

    SciPy converts formats other than COO and CSR to CSR, and for some of them adds up entries that
    occur more than once.

    Args, Returns, Raises: as for `from_torch_coo`, but the layer is on the CPU; ImportError if
    SciPy is not installed.

    Cost: O(nnz + out_features); O(nnz log nnz + out_features) if entries are unsorted.
    """
    library = _scipy_sparse()
    if not library.issparse(matrix):
        raise TypeError(f"`matrix` must be a SciPy sparse array, got {_what(matrix)}")
    if len(matrix.shape) != 2:
        raise ValueError(f"`matrix` must have two dimensions, got shape {matrix.shape}")
    if matrix.dtype.name not in ("float32", "float64"):
        raise TypeError(
            f"`matrix` must be float32 or float64, got {matrix.dtype}: use `.astype('float32')`"
        )
    if matrix.format == "coo":
        indices = torch.stack([_copied(axis.astype("int64")) for axis in (matrix.row, matrix.col)])
    else:
        matrix = matrix.tocsr()
        pointers = _copied(matrix.indptr.astype("int64"))
        indices = _of_rows(pointers, _copied(matrix.indices.astype("int64")))
    return _layer(indices, _copied(matrix.data), matrix.shape, bias=bias, coalesce=coalesce)


@torch.no_grad()
def _layer(
    indices: Tensor, values: Tensor, shape: tuple[int, ...], *, bias: Tensor | None, coalesce: bool
) -> TrulySparseLinear:
    """Make a layer of entries in any order."""
    out_features, in_features = shape
    indices, values = indices.detach(), values.detach()
    _check_range(indices, out_features, in_features)
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(
            f"`matrix` must be float32 or float64, got {values.dtype}: convert its values first"
        )
    positions = indices[0].long() * in_features + indices[1]
    steps = positions.diff()
    if bool((steps < 0).any()):
        positions, order = positions.sort(stable=True)
        values, steps = values[order], positions.diff()
    if bool((steps == 0).any()):
        if not coalesce:
            first = int(positions[1:][steps == 0][0])
            raise ValueError(
                f"`matrix` has the entry ({first // in_features}, {first % in_features}) more than "
                "once; `coalesce=True` adds such entries up"
            )
        positions, places = torch.unique_consecutive(positions, return_inverse=True)
        values = values.new_zeros(positions.shape[0]).index_add_(0, places, values)
    topology = Topology.from_positions(positions, (out_features, in_features))
    return TrulySparseLinear.from_topology(topology, values, bias)


def _check_range(indices: Tensor, out_features: int, in_features: int) -> None:
    """Raise for an index out of range, which a linear position would turn into another entry."""
    for axis, (entries, size) in enumerate(zip(indices, (out_features, in_features), strict=True)):
        if entries.numel() and (int(entries.min()) < 0 or int(entries.max()) >= size):
            raise ValueError(
                f"`matrix` has indices from {int(entries.min())} to {int(entries.max())} in "
                f"dimension {axis}, which has the size {size}"
            )


def _copied(array: Any) -> Tensor:
    """Copy a NumPy array to the CPU, whatever torch's default device is."""
    return torch.tensor(array, device="cpu")


def _of_rows(crow_indices: Tensor, col_indices: Tensor) -> Tensor:
    counts = crow_indices.long().diff()
    rows = torch.arange(counts.shape[0], device=counts.device).repeat_interleave(counts)
    return torch.stack([rows, col_indices.long()])


def _checked(layer: TrulySparseLinear) -> TrulySparseLinear:
    if not isinstance(layer, TrulySparseLinear):
        raise TypeError(f"`layer` must be a TrulySparseLinear, got {type(layer).__name__}")
    return layer


def _what(matrix: object) -> str:
    name = type(matrix).__name__
    return f"{name} of layout {matrix.layout}" if isinstance(matrix, Tensor) else name


def _torch_sparse() -> Any:
    try:
        import torch_sparse
    except ImportError as error:
        raise ImportError(
            "torch-sparse is not installed: pip install --no-build-isolation torch_scatter "
            "torch_sparse (they compile for about a quarter of an hour)"
        ) from error
    return torch_sparse


def _scipy_sparse() -> Any:
    try:
        import scipy.sparse
    except ImportError as error:
        raise ImportError("SciPy is not installed: pip install scipy") from error
    return scipy.sparse
