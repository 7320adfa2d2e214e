"""The truly sparse estimators, their variations, and the dense and masked networks beside them."""

from __future__ import annotations

import copy
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse.estimators import Recipe, SparseEnsemble, TrulySparseClassifier

from .classic import Prediction

Array = npt.NDArray[Any]


def fit_estimator(features: Array, labels: Array, seed: int, **settings: Any) -> Prediction:
    """Fit `TrulySparseClassifier`; `recipe` is a dict of what differs from the default recipe."""
    recipe = Recipe(**settings.pop("recipe", {}))
    classifier = TrulySparseClassifier(random_state=seed, recipe=recipe, **settings)
    classifier.fit(features, labels)
    return Prediction(classifier.predict, classifier.n_weights_)


def default_settings() -> dict[str, Any]:
    """Return what decides the classifier's predictions where no setting says otherwise."""
    settings = TrulySparseClassifier().get_params()
    for name in ("random_state", "n_jobs", "verbose"):
        del settings[name]
    recipe = asdict(Recipe())
    del recipe["temperature"]  # of probabilities alone
    for name in ("weight_average", "held_out"):  # options that came later, and are off
        if recipe[name] == 0:
            del recipe[name]
    if "held_out" not in recipe:
        del recipe["patience"]
    return {**settings, "default_recipe": recipe}


def fit_dense(features: Array, labels: Array, seed: int, **settings: Any) -> Prediction:
    """Fit the classifier with dense first layers: the same recipe, members and hidden units."""
    classifier = DenseClassifier(random_state=seed, **settings)
    classifier.fit(features, labels)
    return Prediction(classifier.predict, classifier.n_weights_)


def fit_masked(features: Array, labels: Array, seed: int, **settings: Any) -> Prediction:
    """Fit the classifier with its masked twin: the same topologies, as dense arrays and masks."""
    classifier = MaskedClassifier(random_state=seed, **settings).fit(features, labels)
    return Prediction(classifier.predict, classifier.n_weights_)


def fit_at_density(features: Array, labels: Array, seed: int, **settings: Any) -> Prediction:
    """Fit one network of the recipe whose first layer has a given density.

    `topology` is `"static"`, `"set"`, `"rigl"` (growth by gradient) or `"dense"`.
    """
    density, topology = settings["density"], settings["topology"]
    if topology == "dense":
        return fit_dense(features, labels, seed, n_estimators=1, evolution=None)
    evolution = {"static": None, "set": "set", "rigl": "gradient"}[topology]
    inputs, units = features.shape[1], TrulySparseClassifier().hidden_units
    epsilon = density * inputs * units / (inputs + units)
    return fit_estimator(
        features, labels, seed, n_estimators=1, epsilon=epsilon, evolution=evolution
    )


class MaskedEnsemble(SparseEnsemble):
    """An ensemble whose first layers are one dense array times a mask."""

    first: Any

    def __init__(self, *sizes: int, **settings: Any) -> None:
        super().__init__(*sizes, **settings)
        self.first = tts.MaskedLinear.from_sparse(self.first)

    def compact(self) -> SparseEnsemble:
        """Return an ensemble with truly sparse first layers of the same weights."""
        small = copy.deepcopy(self).requires_grad_(False).eval()
        masked = small.first
        values = masked.gather(masked.weight.detach())
        small.first = tts.TrulySparseLinear.from_topology(masked.topology, values, masked.bias)
        return small


class DenseEnsemble(SparseEnsemble):
    """An ensemble whose first layers are one dense array, drawn as `he_uniform` draws weights."""

    first: Any

    def __init__(self, *sizes: int, generator: torch.Generator, **settings: Any) -> None:
        super().__init__(*sizes, generator=generator, **settings)
        inputs, units = self.first.in_features, self.first.out_features
        self.first = nn.utils.skip_init(nn.Linear, inputs, units)
        bound = (6 / inputs) ** 0.5
        with torch.no_grad():
            self.first.weight.uniform_(-bound, bound, generator=generator)
            self.first.bias.zero_()

    @property
    def weights(self) -> int:
        """Number of weights of both layers."""
        return int(self.first.weight.numel() + self.head.numel())

    def compact(self) -> SparseEnsemble:
        """Return the ensemble itself."""
        return self.requires_grad_(False).eval()

    @torch.no_grad()
    def member(self, number: int) -> nn.Sequential:
        """Copy one member into plain modules."""
        part = slice(number * self.hidden, (number + 1) * self.hidden)
        first = nn.utils.skip_init(nn.Linear, self.first.in_features, self.hidden)
        first.weight.copy_(self.first.weight[part])
        first.bias.copy_(self.first.bias[part])
        head = nn.utils.skip_init(nn.Linear, self.hidden, self.head.shape[2])
        head.weight.copy_(self.head[number].t())
        head.bias.copy_(self.head_bias[number, 0])
        return nn.Sequential(first, nn.ReLU(), head)


class DenseClassifier(TrulySparseClassifier):
    """The classifier with dense first layers."""

    _ensemble_class = DenseEnsemble


class MaskedClassifier(TrulySparseClassifier):
    """The classifier with `MaskedLinear` layers of the same topologies and weights."""

    _ensemble_class = MaskedEnsemble


def fit_set_paper(features: Array, labels: Array, seed: int, **settings: Any) -> Prediction:
    """Train an MLP by SET with the settings of its paper's code, on standardised features.

    Mocanu et al. 2018: ReLU layers, epsilon 20, 30 % replaced after each epoch, new weights from
    N(0, 0.1^2), SGD of rate 0.01, momentum 0.9, weight decay 0.0002, batches of 2, last epoch.
    """
    hidden: list[int] = settings["hidden"]
    epochs: int = settings["epochs"]
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    classes, numbers = np.unique(labels, return_inverse=True)
    inputs = torch.from_numpy(((features - mean) / deviation).astype(np.float32))
    targets = torch.from_numpy(numbers)
    generator = torch.Generator().manual_seed(seed)
    sizes = [features.shape[1], *hidden]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        epsilon = min(20.0, before * after / (before + after))
        layer = tts.TrulySparseLinear(
            before, after, epsilon=epsilon, init="set_normal", generator=generator
        )
        layers += [layer, nn.ReLU()]
    head = nn.utils.skip_init(nn.Linear, sizes[-1], len(classes))
    nn.init.normal_(head.weight, 0, 0.1, generator=generator)
    nn.init.zeros_(head.bias)
    network = nn.Sequential(*layers, head)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.01, momentum=0.9, weight_decay=2e-4, fused=True
    )
    steps = -(-len(targets) // 2)
    evolution = tts.SET(network, optimizer, every=steps, generator=generator)
    one_hot = torch.nn.functional.one_hot(targets, len(classes)).float()
    for _ in range(epochs):
        for picked in torch.randperm(len(targets), generator=generator).split(2):
            optimizer.zero_grad()
            outputs = torch.sigmoid(network(inputs[picked]))
            (outputs - one_hot[picked]).square().mean().backward()
            optimizer.step()
    evolution.remove()

    @torch.no_grad()
    def decide(table: Array) -> Array:
        scaled = torch.from_numpy(((table - mean) / deviation).astype(np.float32))
        return np.asarray(classes[network(scaled).nan_to_num(nan=-1e9).argmax(dim=1).numpy()])

    weights = sum(layer.nnz for layer in layers if isinstance(layer, tts.TrulySparseLinear))
    return Prediction(decide, weights + head.weight.numel())
