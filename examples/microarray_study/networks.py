"""The three networks of the comparison: one shape, three ways to hold its weights."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

import torch_truly_sparse as tts
from microarray_study.errors import InputError
from microarray_study.settings import Settings

# A layer denser than this stays dense in every network: storing it sparse saves nothing, and
# replacing 30 % of it each epoch would find hardly an empty position. With an epsilon of 20 and
# 1,000 hidden units that is the output layer, up to 25 classes.
MOST_DENSE = 0.8


# Weights as `nn.Linear` draws them, at the start and where connections grow, so that all three
# networks begin at the same scale. Larger ones (He's are sqrt(6) times these) fit the few samples
# within some epochs, before the first layers have learned which features matter.
INIT = "linear_uniform"


def build_network(
    method: str, features: int, classes: int, settings: Settings, generator: torch.Generator
) -> nn.Sequential:
    """Build an MLP with ReLU between its layers, which are `sparse`, `masked` or `dense`.

    With equally seeded generators the sparse and the masked one are twins: the same topologies and
    the same weights.
    """
    sizes = [features, *settings.hidden, classes]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        if method == "dense" or layer_density(inputs, outputs, settings.epsilon) > MOST_DENSE:
            layer: nn.Module = _dense(inputs, outputs, generator)
        else:
            kind = {"sparse": tts.TrulySparseLinear, "masked": tts.MaskedLinear}[method]
            layer = kind(inputs, outputs, epsilon=settings.epsilon, init=INIT, generator=generator)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def layer_density(inputs: int, outputs: int, epsilon: float) -> float:
    """Return the share of positions that Erdos-Renyi connects: epsilon (n + m) / (n m)."""
    return epsilon * (inputs + outputs) / (inputs * outputs)


def check_sparse(features: int, settings: Settings) -> None:
    """Refuse a setting that leaves no layer sparse."""
    sizes = [features, *settings.hidden]
    if all(layer_density(n, m, settings.epsilon) > MOST_DENSE for n, m in pairwise(sizes)):
        raise InputError(
            f"epsilon {settings.epsilon:g} with hidden layers of {settings.hidden} units makes "
            f"every layer denser than {MOST_DENSE:.0%}, so none would be sparse; lower --epsilon "
            "or widen --hidden"
        )


def connections(network: nn.Module) -> int:
    """Count the connections that have a weight, with which the network computes."""
    return sum(_layer_connections(layer) for layer in network.modules())


def stored_weights(network: nn.Module) -> int:
    """Count the numbers that are stored for the weights, without masks."""
    return sum(p.numel() for name, p in network.named_parameters() if not name.endswith("bias"))


def _layer_connections(layer: nn.Module) -> int:
    if isinstance(layer, tts.TrulySparseLinear | tts.MaskedLinear):
        return layer.nnz
    return layer.weight.numel() if isinstance(layer, nn.Linear) else 0


def _dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """`nn.Linear` with PyTorch's own distribution of weights, drawn from `generator`."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
