"""How strongly the connections of a layer suggest another one: paths of three connections."""

from __future__ import annotations

import torch
from torch import Tensor

_PATHS_AT_A_TIME = 1_000_000  # some 60 MB


def path_scores(
    connections: Tensor, candidates: Tensor, out_features: int, in_features: int
) -> Tensor:
    """Score empty positions by CH3-L3: paths of length three between their two units.

    A path from output u to input v goes over an input z1 and an output z2: u - z1 - z2 - v. The
    score is the sum over paths of `1 / sqrt(e(z1) e(z2))`, where e(z) is 1 + the number of
    connections of z that leave the local community: u, v, and all units on such paths.

    Args:
        connections: (n,) int64 positions (`out * in_features + in`), increasing.
        candidates: (m,) int64 positions, none of them a connection.
        out_features: number of output units.
        in_features: number of input units.

    Returns:
        (m,) float64, 0 where there is no path.

    Source: Zhang et al., "Epitopological learning and Cannistraci-Hebb network shape intelligence
    brain-inspired theory for ultra-sparse advantage in deep learning", ICLR 2024.

    Cost: O(n + m + paths) time, where `paths` counts, for each candidate, the connections of the
    outputs that its input is connected to: m fan_out fan_in on average. Memory: O(n + m), and 60
    bytes for each of a million paths, or for those of one candidate, where these are more.
    """
    graph = _Graph(connections, out_features, in_features)
    inputs = candidates % in_features
    ends = graph.paths_from[inputs].cumsum(0)
    scores = torch.zeros(len(candidates), dtype=torch.float64, device=candidates.device)
    first, done = 0, 0
    while first < len(candidates):
        # at least one candidate, and as many as have few paths together
        limit = torch.tensor([done + _PATHS_AT_A_TIME], device=ends.device)
        last = max(first + 1, int(torch.searchsorted(ends, limit, right=True)))
        scores[first:last] = graph.scores(candidates[first:last])
        first, done = last, int(ends[last - 1])
    return scores


class _Graph:
    """The connections of a layer, by output unit and by input unit.

    Args:
        connections: (n,) int64 positions, increasing.
        out_features: number of output units.
        in_features: number of input units.
    """

    def __init__(self, connections: Tensor, out_features: int, in_features: int) -> None:
        self.connections, self.in_features = connections, in_features
        outputs, self.inputs = connections // in_features, connections % in_features
        order = self.inputs.argsort(stable=True)
        self.outputs_by_input = outputs[order]
        self.fan_in = torch.bincount(outputs, minlength=out_features)
        self.fan_out = torch.bincount(self.inputs, minlength=in_features)
        self.first_of_output = self.fan_in.cumsum(0) - self.fan_in
        self.first_of_input = self.fan_out.cumsum(0) - self.fan_out
        self.paths_from = torch.zeros_like(self.fan_out)  # connections of each input's outputs
        self.paths_from.index_add_(0, self.inputs, self.fan_in[outputs])

    def scores(self, candidates: Tensor) -> Tensor:
        """Score some candidates: all of their paths are held at once."""
        u, v = candidates // self.in_features, candidates % self.in_features
        # each candidate's z2, then each z2's z1
        candidate, place = _members(self.first_of_input[v], self.fan_out[v])
        z2 = self.outputs_by_input[place]
        pair, place = _members(self.first_of_output[z2], self.fan_in[z2])
        z1 = self.inputs[place]
        closes = self._connected(u[candidate[pair]] * self.in_features + z1)
        pair, z1 = pair[closes], z1[closes]
        # connections that leave: all of z1's but the one to u and those on paths; so for z2 and v
        on_paths_2 = torch.bincount(pair, minlength=len(z2))[pair]
        _, which, counts = torch.unique(
            candidate[pair] * self.in_features + z1, return_inverse=True, return_counts=True
        )
        leaving_1 = self.fan_out[z1] - 1 - counts[which]
        leaving_2 = self.fan_in[z2[pair]] - 1 - on_paths_2
        share = ((1 + leaving_1) * (1 + leaving_2)).double().rsqrt()
        return torch.bincount(candidate[pair], share, minlength=len(candidates))

    def _connected(self, positions: Tensor) -> Tensor:
        """Say for each position whether there is a connection."""
        if not len(self.connections):
            return torch.zeros_like(positions, dtype=torch.bool)
        place = torch.searchsorted(self.connections, positions)
        return self.connections[place.clamp_max(len(self.connections) - 1)] == positions


def _members(first: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Enumerate groups that lie one after another in an array.

    Args:
        first: (k,) int64, where each group begins.
        size: (k,) int64, how many members it has.

    Returns:
        For each member of each group, in order: the number of its group, and its place.
    """
    group = torch.repeat_interleave(size)
    within = torch.arange(len(group), device=size.device) - (size.cumsum(0) - size)[group]
    return group, first[group] + within
