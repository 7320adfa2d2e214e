"""The problem that every competitor is given: a topology, weights, a batch and a gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import torch_truly_sparse as tts

from .shapes import Shape


@dataclass(frozen=True)
class Problem:
    """The operands of one step through a hidden layer without bias, in float32.

    Attributes:
        shape: the sizes, the batch and the density.
        topology: where the nonzeros are.
        values: (nnz,) the weights; each competitor trains a copy.
        input: (batch, in_features), a leaf that requires a gradient, as the input of a hidden
            layer does.
        grad_output: (batch, out_features) the gradient of the output, which backward starts from.
    """

    shape: Shape
    topology: tts.Topology
    values: Tensor
    input: Tensor
    grad_output: Tensor

    @classmethod
    def draw(cls, shape: Shape, *, seed: int = 0) -> Problem:
        """Draw a problem with a uniformly random topology; equal seeds give equal problems."""
        generator = torch.Generator().manual_seed(seed)
        layer = tts.TrulySparseLinear(
            shape.in_features, shape.out_features, bias=False, nnz=shape.nnz, generator=generator
        )
        return cls(
            shape=shape,
            topology=layer.topology,
            values=layer.values.detach(),
            input=torch.randn(shape.batch, shape.in_features, generator=generator).requires_grad_(),
            grad_output=torch.randn(shape.batch, shape.out_features, generator=generator),
        )

    def dense_weight(self) -> Tensor:
        """Make the dense (out_features, in_features) matrix, new memory."""
        dense = torch.zeros(self.shape.out_features, self.shape.in_features)
        rows, columns = self.topology.indices.long()
        dense[rows, columns] = self.values
        return dense
