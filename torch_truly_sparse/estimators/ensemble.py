"""The members of an ensemble, side by side in one block-sparse network."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ..functional import sparse_linear
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

    Shape: input (batch, features or columns), output (members, batch, outputs), float32.
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
        self.first.reset_weights(generator=generator)
        self.head = nn.Parameter(torch.zeros(members, hidden, outputs, dtype=torch.float32))
        self.head_bias = nn.Parameter(torch.zeros(members, 1, outputs, dtype=torch.float32))

    def forward(
        self, input: Tensor, columns: Tensor | None = None, dropout: Tensor | None = None
    ) -> Tensor:
        """Compute the outputs of every member.

        Args:
            input: (batch, features) float32, or (batch, len(columns)) of some features.
            columns: int64, increasing: the features of `input`, where the others are 0; None: all.
            dropout: (batch, members, hidden) float32 that the hidden units are multiplied with.

        Cost: of the first layer, O(batch (connections of the columns + hidden units)); its gradient
        takes O(nnz) more.
        """
        if columns is None:
            sums = self.first(input)
        else:
            topology, entries = self._connections_of(columns)
            values = self.first.values.index_select(0, entries)
            sums = sparse_linear(input, topology, values, self.first.bias)
        units = torch.relu(sums).view(len(input), self.members, self.hidden)
        if dropout is not None:
            units = units * dropout
        return torch.baddbmm(self.head_bias, units.transpose(0, 1), self.head)

    def _connections_of(self, columns: Tensor) -> tuple[Topology, Tensor]:
        """Return the connections of some features, and the number of each in the first layer."""
        topology = self.first.topology
        starts, _, permutation = topology.transposed
        lengths = starts[columns + 1] - starts[columns]
        before = lengths.cumsum(0) - lengths
        places = torch.arange(len(columns)).repeat_interleave(lengths)
        by_column = torch.arange(len(places)) + (starts[columns] - before)[places]
        entries, order = permutation[by_column].long().sort()
        indices = torch.stack([topology.indices[0][entries].long(), places[order]])
        return Topology.from_indices(indices, (topology.out_features, len(columns))), entries

    @torch.no_grad()
    def narrowed(self, columns: Tensor) -> SparseEnsemble:
        """Return a copy that reads some features only, for samples where the others are 0."""
        small = copy.copy(self)
        small._modules = dict(self._modules)
        topology, entries = self._connections_of(columns)
        small.first = TrulySparseLinear.from_topology(
            topology, self.first.values.detach()[entries], self.first.bias
        )
        return small

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
