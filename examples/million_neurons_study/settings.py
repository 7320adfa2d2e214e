"""The experiment: how large its network is, and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# A layer denser than this is held as a dense one: it saves no memory sparse, and evolution would
# find hardly an empty position. With epsilon 20 that is the output layer.
MOST_DENSE = 0.8

# Named sizes. The first four are those of the SET code's experiment on a lung data set (Mocanu et
# al. 2018 and Liu et al. 2021, "Sparse evolutionary deep learning with over one million artificial
# neurons on commodity hardware"). The others are ours: "fifty" has 50,065,542 neurons and
# 250,163,858 weights, "billion" 10,065,541 neurons and 1,005,940,640 weights.
SIZES: dict[str, dict[str, Any]] = {
    "3000": {"hidden": 3_000},
    "30000": {"hidden": 30_000},
    "300000": {"hidden": 300_000},
    "600000": {"hidden": 600_000},
    "fifty": {"hidden": 16_666_667, "inputs": 65_536, "epsilon": 2.5},
    "billion": {
        "hidden": 1_000_000,
        "hidden_layers": 10,
        "inputs": 65_536,
        "epsilon": 52.5,
        "init": "he_uniform",
        "regrow_init": "zeros",
    },
}
# Who updates the weights: tts.optim.SGD within the backward pass, without an array of their
# gradient, or torch.optim.SGD(fused=True) after it.
OPTIMIZERS = ("tts", "torch")


@dataclass(frozen=True)
class Settings:
    """The setting of the SET code, but for what docs/million_neurons.md says and why."""

    hidden: int = 3_000
    hidden_layers: int = 3
    inputs: int = 3_312
    classes: int = 5
    epsilon: float = 20.0  # Erdos-Renyi: a layer has epsilon * (inputs + outputs) connections
    # Weights at the start and of new connections, N(0, 0.1^2) as in the SET code. Ten layers need a
    # scale that keeps the size of the activations, and new connections that do not disturb it.
    init: str = "set_normal"
    regrow_init: str = "set_normal"
    fraction: float = 0.3  # of a layer's connections, replaced after every epoch but the last
    epochs: int = 5
    samples: int = 203  # generated ones; two thirds are trained on
    batch_size: int = 2
    learning_rate: float | None = None  # None: `rate` chooses
    momentum: float = 0.9
    optimizer: str = "tts"  # one of OPTIMIZERS
    weight_decay: float = 2e-4
    test_fraction: float = 1 / 3
    seed: int = 0

    @property
    def units(self) -> list[int]:
        """Units of every layer, inputs and outputs among them."""
        return [self.inputs, *[self.hidden] * self.hidden_layers, self.classes]

    @property
    def neurons(self) -> int:
        """All units, inputs and outputs among them, as the papers count."""
        return sum(self.units)

    @property
    def rate(self) -> float:
        """The learning rate: 0.01 up to 3,000 hidden units, and less as layers grow wider.

        The step that a layer's outputs take grows with the number of its inputs: at 0.01 the
        output layer of 300,000 inputs diverges within the first batches.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return 0.01 * min(1.0, 3_000 / self.hidden)

    def layers(self) -> list[Layer]:
        """The layers, from the input on."""
        return [Layer(inputs, outputs, self.epsilon) for inputs, outputs in pairwise(self.units)]


@dataclass(frozen=True)
class Layer:
    """The size of one layer."""

    inputs: int
    outputs: int
    epsilon: float

    @property
    def is_dense(self) -> bool:
        """Whether it would be so full that it is a dense layer."""
        wanted = self.epsilon * (self.inputs + self.outputs)
        return wanted > MOST_DENSE * self.inputs * self.outputs

    @property
    def weights(self) -> int:
        """How many weights it holds."""
        if self.is_dense:
            return self.inputs * self.outputs
        return round(self.epsilon * (self.inputs + self.outputs))
