"""The libraries that are compared, behind one interface; each is used as its documentation says."""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from importlib.metadata import version
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torch_truly_sparse as tts

from .problem import Problem

# Entries of the largest dense weight: 1 GB in float32, and its gradient as much again.
DENSE_LIMIT = 2**28


class Competitor(ABC):
    """One way to train a sparse layer, loaded with the weights of a problem.

    Attributes:
        name: the name in the tables.
        module: the module that must be importable.
        distribution: the distribution on PyPI that must be installed.
        is_sparse_peer: whether it is another library that stores only the nonzeros.
        needs_dense: whether it holds arrays of the shape of the dense weight.
        weight: the leaf tensor that an optimizer would train.
    """

    name: ClassVar[str]
    module: ClassVar[str] = "torch"
    distribution: ClassVar[str] = "torch"
    is_sparse_peer: ClassVar[bool] = False
    needs_dense: ClassVar[bool] = False
    weight: Tensor

    @abstractmethod
    def __init__(self, problem: Problem) -> None: ...

    @abstractmethod
    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer: (batch, in_features) to (batch, out_features)."""

    @abstractmethod
    def grad_values(self) -> Tensor:
        """Return the gradient of the nonzeros, (nnz,), in the order of the problem's topology."""

    @classmethod
    def load(cls) -> Any:
        """Import the module of this competitor.

        Raises:
            ImportError: the module is not installed, or does not load here.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return importlib.import_module(cls.module)
            except (OSError, RuntimeError, AttributeError) as error:  # built for another torch
                raise ImportError(f"{cls.module} does not load here: {error}") from error

    @classmethod
    def version(cls) -> str:
        """Return the version of the distribution."""
        return version(cls.distribution)


class TrulySparse(Competitor):
    """`torch_truly_sparse.TrulySparseLinear`."""

    name = "torch_truly_sparse"
    module = distribution = "torch_truly_sparse"

    @torch.no_grad()
    def __init__(self, problem: Problem) -> None:
        shape = problem.shape
        self.layer = tts.TrulySparseLinear(
            shape.in_features, shape.out_features, bias=False, nnz=shape.nnz, device="meta"
        ).to_empty(device="cpu")
        self.layer.replace_topology(problem.topology)
        self.layer.values.copy_(problem.values)
        self.weight = self.layer.values

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        output: Tensor = self.layer(input)
        return output

    def grad_values(self) -> Tensor:
        """Return the gradient of the stored values, which have the right order."""
        return _gradient(self.weight)


class Dense(Competitor):
    """`torch.nn.Linear`, its zeros stored, multiplied and differentiated."""

    name = "dense"
    needs_dense = True

    def __init__(self, problem: Problem) -> None:
        self._rows, self._columns = problem.topology.indices.long()
        shape = problem.shape
        layer = nn.Linear(shape.in_features, shape.out_features, bias=False, device="meta")
        layer.weight = nn.Parameter(problem.dense_weight())
        self._layer, self.weight = layer, layer.weight

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        output: Tensor = self._layer(input)
        return output

    def grad_values(self) -> Tensor:
        """Pick the nonzeros out of the dense gradient."""
        return _gradient(self.weight)[self._rows, self._columns]


class MaskedDense(Dense):
    """A dense weight times a mask of zeros and ones, as `torch.nn.utils.prune` does it.

    The mask is float32, as in `prune`: the product with a bool mask takes 1.5 times as long.
    """

    name = "masked dense"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._mask = torch.zeros_like(self.weight)
        self._mask[self._rows, self._columns] = 1

    def forward(self, input: Tensor) -> Tensor:
        """Mask the weight, then apply it."""
        return F.linear(input, self.weight * self._mask)


class TorchCSR(Competitor):
    """`torch.sparse.mm` with a CSR weight; its gradient is CSR, too.

    `F.linear` would form a dense gradient. The indices are int32, as MKL requires.
    """

    name = "torch CSR"
    is_sparse_peer = True

    def __init__(self, problem: Problem) -> None:
        self.weight = csr_tensor(problem, torch.int32).requires_grad_()

    def forward(self, input: Tensor) -> Tensor:
        """Multiply the transposed batch."""
        product: Tensor = torch.sparse.mm(self.weight, input.t())
        return product.t()

    def grad_values(self) -> Tensor:
        """Return the values of the CSR gradient."""
        return _gradient(self.weight).values()


class TorchSparse(Competitor):
    """`torch_sparse.SparseTensor.matmul` (pyg-team/pytorch_sparse)."""

    name = "torch-sparse"
    module = "torch_sparse"
    distribution = "torch-sparse"
    is_sparse_peer = True

    def __init__(self, problem: Problem) -> None:
        self.weight = nn.Parameter(problem.values.clone())
        self._matrix = self.load().SparseTensor(
            rowptr=problem.topology.row_pointers,
            col=problem.topology.indices[1].long(),
            value=self.weight,
            sparse_sizes=(problem.shape.out_features, problem.shape.in_features),
            is_sorted=True,
        )

    def forward(self, input: Tensor) -> Tensor:
        """Multiply the transposed batch."""
        product: Tensor = self._matrix.matmul(input.t())
        return product.t()

    def grad_values(self) -> Tensor:
        """Return the gradient of the stored values, which have the right order."""
        return _gradient(self.weight)


class SparseProp(Competitor):
    """`sparseprop.modules.SparseLinear` (Nikdan et al. 2023, arXiv 2302.04852).

    Its constructor converts a dense matrix; this class fills in the same
    fields without one.
    """

    name = "SparseProp"
    module = "sparseprop.modules"
    distribution = "sparseprop"
    is_sparse_peer = True

    def __init__(self, problem: Problem) -> None:
        self._layer = self.load().SparseLinear(torch.ones(1, 1))
        self._layer.N, self._layer.M = problem.shape.out_features, problem.shape.in_features
        self._layer.W_val = nn.Parameter(problem.values.clone())
        self._layer.W_idx = (
            problem.topology.row_pointers.int(),
            problem.topology.indices[1].int().clone(),
        )
        self.weight = self._layer.W_val

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        output: Tensor = self._layer(input)
        return output

    def grad_values(self) -> Tensor:
        """Return the gradient of the stored values, which have the right order."""
        return _gradient(self.weight)


class SparseLab(Competitor):
    """`sparselab.SparseLinear`, with its default padding.

    Its constructor draws its own topology by way of a dense matrix; this class fills in
    the same fields. The cache of transposes, which knows a matrix by its address alone, is emptied
    first: a layer at the address of an earlier layer would get the transpose of that layer.
    """

    name = "SparseLab"
    module = distribution = "sparselab"
    is_sparse_peer = True

    def __init__(self, problem: Problem) -> None:
        library = self.load()
        library.ops._clear_transpose_cache()
        layer = library.SparseLinear(1, 1, bias=False, sparsity=0.0)
        layer.in_features, layer.out_features = (
            problem.shape.in_features,
            problem.shape.out_features,
        )
        matrix = library.PaddedCSR.from_torch_sparse_csr(csr_tensor(problem, torch.int64))
        layer._csr = matrix
        layer._values = nn.Parameter(torch.from_numpy(np.asarray(matrix.values)))
        self._layer = layer
        self.weight = layer._values
        # Each row has room to grow: where its weights lie in the padded array.
        padding = (
            torch.from_numpy(np.array(matrix.row_start)).long() - problem.topology.row_pointers[:-1]
        )
        counts = problem.topology.row_pointers.diff()
        self._slots = torch.arange(problem.shape.nnz) + padding.repeat_interleave(counts)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer."""
        output: Tensor = self._layer(input)
        return output

    def grad_values(self) -> Tensor:
        """Leave the padding out of the gradient."""
        return _gradient(self.weight)[self._slots]


COMPETITORS: tuple[type[Competitor], ...] = (
    TrulySparse,
    Dense,
    MaskedDense,
    TorchCSR,
    TorchSparse,
    SparseProp,
    SparseLab,
)
OURS = TrulySparse.name
SPARSE_PEERS = tuple(kind.name for kind in COMPETITORS if kind.is_sparse_peer)


def csr_tensor(problem: Problem, dtype: torch.dtype) -> Tensor:
    """Make the weight a torch CSR tensor of its own, with indices of `dtype`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CSR is in beta, its invariants unchecked: both known
        return torch.sparse_csr_tensor(
            problem.topology.row_pointers.to(dtype),
            problem.topology.indices[1].to(dtype),
            problem.values.clone(),
            size=(problem.shape.out_features, problem.shape.in_features),
        )


def _gradient(leaf: Tensor) -> Tensor:
    if leaf.grad is None:
        raise RuntimeError("no backward pass has been made yet")
    return leaf.grad
