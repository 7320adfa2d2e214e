"""The settings of the estimators that are rarely changed, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, SupportsFloat

from .._arguments import as_fraction, as_int, as_scale

LOSSES = ("squared", "cross_entropy")
EVOLUTIONS = ("set", "gradient", None)

Loss = Literal["squared", "cross_entropy"]


@dataclass(frozen=True)
class Recipe:
    """What an estimator does that its own parameters do not say.

    Args:
        loss: of a classifier: `"squared"`, one output for each class with the targets +1 and -1
            (regularised least squares; Rifkin and Klautau 2004), or `"cross_entropy"`.
        label_smoothing: share of each target that all classes share; of `"cross_entropy"` alone.
        clip: a scaled feature z enters as z / sqrt(1 + (z / clip)^2), so that outliers count no
            more than `clip` deviations (RealMLP, Holzmueller et al. 2024); infinity: no clip.
        feature_weight: each scaled feature is multiplied with max(F, weight_floor)^feature_weight,
            F its statistic of the analysis of variance on the training part, then all together
            scaled to a mean square of 1. 0 treats all features alike.
        weight_floor: the least F that a feature counts with: features that matter only together
            with others have small ones.
        weight_decay: of AdamW.
        dropout: share of the hidden units left out of each training step.
        fraction: of the connections that an evolution replaces.
        evolve_every: epochs between two evolutions.
        evolve_until: share of the training after which the topology stays as it is.
        weight_average: share of the epochs, the last ones, after each of which the weights are
            noted; the members get the mean of what was noted (Izmailov et al. 2018). The topology
            must be fixed by then: `weight_average + evolve_until` is at most 1.
        held_out: share of the samples that are not trained on; the members get the weights of the
            epoch in which the loss of these samples was least, and training ends `patience` epochs
            after it. 0: all samples are trained on, for all epochs.
        patience: see `held_out`.
        temperature: a classifier's probabilities are softmax(outputs / temperature); 0.3 for
            outputs of `"squared"`, which lie about -1 and +1. `"cross_entropy"` has no use for it:
            its outputs are logarithms of probabilities, and its temperature is 1.

    Raises:
        TypeError, ValueError: a value is no number, or out of range.

    The numbers were chosen on ten data sets, which docs/estimators.md names.
    """

    loss: Loss = "squared"
    label_smoothing: float = 0.0
    clip: float = 3.0
    feature_weight: float = 0.5
    weight_floor: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.0
    fraction: float = 0.3
    evolve_every: int = 5
    evolve_until: float = 0.75
    weight_average: float = 0.0
    held_out: float = 0.0
    patience: int = 10
    temperature: float = 0.3

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {LOSSES}, got {self.loss!r}")
        shares = ("label_smoothing", "dropout", "fraction", "evolve_until", "weight_average")
        for name in (*shares, "held_out"):
            as_fraction(getattr(self, name), name)
        for name in ("feature_weight", "weight_decay"):
            as_scale(getattr(self, name), name)
        for name in ("weight_floor", "temperature"):
            as_positive(getattr(self, name), name)
        if self.clip != math.inf:
            as_positive(self.clip, "clip")
        as_int(self.evolve_every, "evolve_every", least=1)
        as_int(self.patience, "patience", least=1)
        for name in ("dropout", "held_out"):
            if getattr(self, name) == 1:
                raise ValueError(f"`{name}` must be below 1, got 1")
        if self.weight_average > 0 and self.weight_average + self.evolve_until > 1:
            raise ValueError(
                "`weight_average` + `evolve_until` must be at most 1, so that the topology is "
                f"fixed while weights are averaged; got {self.weight_average} + {self.evolve_until}"
            )
        if self.weight_average > 0 and self.held_out > 0:
            raise ValueError(
                "`weight_average` and `held_out` exclude each other: training that stops early has "
                "no last epochs known beforehand; set one of the two to 0"
            )


def as_positive(value: SupportsFloat, name: str) -> float:
    """Return a finite number above 0.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value is 0 or negative, infinite or NaN.
    """
    number = as_scale(value, name)
    if number == 0:
        raise ValueError(f"`{name}` must be above 0, got 0")
    return number
