"""The settings of the estimators that are rarely changed, each with its reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

LOSSES = ("squared", "cross_entropy")
EVOLUTIONS = ("gradient", "set", None)

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
        temperature: a classifier's probabilities are softmax(outputs / temperature).

    Raises:
        ValueError: a value is out of range.

    All numbers were chosen together on ten data sets; docs/estimators.md says how, and what each
    one brings.
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
    temperature: float = 0.3

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {LOSSES}, got {self.loss!r}")
        unit = ("label_smoothing", "dropout", "fraction", "evolve_until")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "loss":
                continue
            if not value >= 0 or (value == math.inf and field.name != "clip"):
                raise ValueError(f"`{field.name}` must be at least 0 and finite, got {value}")
            if field.name in unit and value > 1:
                raise ValueError(f"`{field.name}` must lie in [0, 1], got {value}")
        if self.evolve_every < 1 or self.evolve_every != int(self.evolve_every):
            raise ValueError(
                f"`evolve_every` must be a whole number of at least 1, got {self.evolve_every}"
            )
        for name in ("clip", "temperature", "weight_floor"):
            if getattr(self, name) == 0:
                raise ValueError(f"`{name}` must be above 0, got 0")
        if self.dropout == 1:
            raise ValueError("`dropout` must be below 1, got 1")
