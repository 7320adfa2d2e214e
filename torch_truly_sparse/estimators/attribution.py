"""How much each feature contributes to the outputs of a fitted ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .ensemble import SparseEnsemble
from .rows import Rows

MOST_SAMPLES = 1000  # that are looked at; more change a rank by less than the seed does
BLOCK = 2**22  # entries of an array of members x samples x features at a time: 16 MB


@dataclass(frozen=True)
class Contributions:
    """Importances of the features, float32.

    Args:
        ensemble: (features,), of the mean over the members.
        members: (members, features), of each member.
    """

    ensemble: Tensor
    members: Tensor


@torch.no_grad()
def contributions(
    ensemble: SparseEnsemble, rows: Rows, targets: Tensor, generator: torch.Generator
) -> Contributions:
    """Return how consistently each feature moves the outputs towards the targets.

    The contribution of feature j to an output f at a sample x is x_j df/dx_j (gradient times input,
    Shrikumar et al. 2016). A feature that tells the classes apart contributes more to the output of
    a class in its own samples than in others, for each sample again; a feature that was only
    memorised contributes at random. So the importance is t^2, t = r sqrt((n - 2) / (1 - r^2)), r
    the correlation of contribution and target over the training samples, where r > 0; summed over
    the outputs. It has no unit.

    Args:
        ensemble: the trained networks.
        rows: the scaled training samples; of more than 1000, 1000 at random are looked at.
        targets: (samples, outputs) float32: +1 for the class of the sample and -1, or the values.
        generator: source of that choice.

    Cost: O(outputs (members samples features + samples nnz)) time, 16 MB and 40 bytes for each
    feature and member.
    """
    members, features = ensemble.members, rows.features
    chosen = torch.arange(rows.samples)
    if rows.samples > MOST_SAMPLES:
        chosen = torch.randperm(rows.samples, generator=generator)[:MOST_SAMPLES].sort().values
    step = max(1, min(256, BLOCK // max(1, members * features)))
    networks = _members(ensemble)
    total = torch.zeros(members + 1, features, dtype=torch.float32)
    for output in range(targets.shape[1]):
        wanted = targets[chosen, output].double()
        wanted = wanted - wanted.mean()
        sums = torch.zeros(3, members + 1, features, dtype=torch.float64)
        for place in range(0, len(chosen), step):
            picked = chosen[place : place + step]
            input, columns = rows.batch(picked)
            if columns is not None:
                networks = _members(ensemble.narrowed(columns))
            each = _gradient_times_input(networks, input, output)
            both = torch.cat([each, each.mean(dim=0, keepdim=True)]).double()
            found = (
                both.sum(dim=1),
                both.square().sum(dim=1),
                torch.einsum("s,msf->mf", wanted[place : place + step], both),
            )
            for total_of, part in zip(sums, found, strict=True):
                if columns is None:
                    total_of += part
                else:
                    total_of.index_add_(1, columns, part)
        total += _squared_t(sums, float(wanted @ wanted), len(chosen))
    return Contributions(total[-1], total[:-1])


def _members(ensemble: SparseEnsemble) -> list[nn.Sequential]:
    return [ensemble.member(number).requires_grad_(False) for number in range(ensemble.members)]


def _gradient_times_input(networks: list[nn.Sequential], input: Tensor, output: int) -> Tensor:
    """Return x_j df/dx_j, (members, batch, features), of one output f of each network."""
    products = torch.empty(len(networks), *input.shape, dtype=torch.float32)
    for number, network in enumerate(networks):
        with torch.enable_grad():
            known = input.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(network(known)[:, output].sum(), known)
        torch.mul(gradient, input, out=products[number])
    return products


def _squared_t(sums: Tensor, wanted_squares: float, samples: int) -> Tensor:
    """Return t^2 of the correlation where it is positive, from the sums over the samples."""
    mean = sums[0] / samples
    spread = sums[1] - samples * mean.square()
    alive = (spread > 1e-9 * sums[1]) & (wanted_squares > 0)
    r2 = sums[2].clamp_min(0).square() / (spread * wanted_squares).clamp_min(1e-300)
    r2 = torch.where(alive, r2.clamp_max(1 - 1e-9), 0.0)
    return (max(samples - 2, 1) * r2 / (1 - r2)).float()


def shares(importances: Tensor) -> Tensor:
    """Scale importances to a sum of 1; all equal where all are 0."""
    total = importances.double().sum()
    if total > 0:
        return (importances.double() / total).float()
    return torch.full_like(importances, 1 / len(importances))
