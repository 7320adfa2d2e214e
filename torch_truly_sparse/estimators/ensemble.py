"""The members of an ensemble, side by side in one block-sparse network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..nn import TrulySparseLinear
from ..topology import Topology


class SparseEnsemble(nn.Module):
    """Several networks of one hidden layer, computed as one.

    The first layers of all members are one `TrulySparseLinear` with a block of `hidden` units for
    each member. All members see the same batch, so one sparse product serves them all. The output
    layers are one array, which starts at zero: no member begins with a random function of its own,
    which few samples could not unlearn.

    Args:
        features: number of inputs.
        outputs: number of outputs of each member.
        members: number of networks.
        hidden: hidden units of each.
        epsilon: Erdos-Renyi scale: a member has round(epsilon (features + hidden)) connections in
            its first layer, at most features x hidden.
        generator: source of topologies and weights.

    Shape: input (batch, features), output (members, batch, outputs), float32.
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        *,
        members: int,
        hidden: int,
        epsilon: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.members, self.hidden = members, hidden
        nnz = min(round(epsilon * (features + hidden)), features * hidden)
        blocks = [
            Topology.random(hidden, features, nnz=nnz, generator=generator) for _ in range(members)
        ]
        rows = torch.cat([b.indices[0].long() + hidden * k for k, b in enumerate(blocks)])
        columns = torch.cat([block.indices[1].long() for block in blocks])
        topology = Topology.from_indices(torch.stack([rows, columns]), (members * hidden, features))
        self.first = TrulySparseLinear.from_topology(
            topology,
            torch.zeros(topology.nnz, dtype=torch.float32),
            torch.zeros(members * hidden, dtype=torch.float32),
            init="he_uniform",
        )
        self.first.reset_parameters(generator=generator)
        self.head = nn.Parameter(torch.zeros(members, hidden, outputs, dtype=torch.float32))
        self.head_bias = nn.Parameter(torch.zeros(members, 1, outputs, dtype=torch.float32))

    def forward(self, input: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Compute the outputs of every member.

        Args:
            input: (batch, features) float32.
            dropout: (batch, members, hidden) float32 that the hidden units are multiplied with.
        """
        units = torch.relu(self.first(input)).view(len(input), self.members, self.hidden)
        if dropout is not None:
            units = units * dropout
        return torch.baddbmm(self.head_bias, units.transpose(0, 1), self.head)

    @property
    def weights(self) -> int:
        """Number of weights: connections of the first layer, and the output layers."""
        return self.first.nnz + self.head.numel()

    @torch.no_grad()
    def compact(self) -> SparseEnsemble:
        """Return a copy for inference that holds nothing but topology, weights and biases."""
        small = copy.deepcopy(self)
        small.zero_grad(set_to_none=True)
        # A new layer, without the orders of its topology that only training has a use for.
        small.first = TrulySparseLinear.from_topology(
            self.first.topology, self.first.values.detach(), self.first.bias
        )
        return small.requires_grad_(False).eval()

    @torch.no_grad()
    def member(self, number: int) -> nn.Sequential:
        """Copy one member into plain modules: TrulySparseLinear, ReLU, Linear."""
        topology, hidden = self.first.topology, self.hidden
        assert self.first.bias is not None
        start, stop = number * hidden, (number + 1) * hidden
        first, last = (int(topology.row_pointers[row]) for row in (start, stop))
        indices = topology.indices[:, first:last].clone()
        indices[0] -= start
        layer = TrulySparseLinear.from_topology(
            Topology.from_indices(indices, (hidden, topology.in_features)),
            self.first.values[first:last].detach(),
            self.first.bias[start:stop].detach(),
        )
        head: nn.Linear = nn.utils.skip_init(
            nn.Linear, hidden, self.head.shape[2], dtype=torch.float32
        )
        head.weight.copy_(self.head[number].t())
        head.bias.copy_(self.head_bias[number, 0])
        return nn.Sequential(layer, nn.ReLU(), head)
