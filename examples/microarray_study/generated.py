"""Generated data of the shape of a microarray study, for runs without a file."""

from __future__ import annotations

import numpy as np

from microarray_study.data_set import DataSet, make_data_set

CLASSES = ("A", "B", "C")
SHARES = (0.45, 0.33, 0.22)  # of the samples, by class: studies are rarely balanced
PATHWAYS = 80  # groups of genes that rise and fall together
INFORMATIVE = 10  # pathways whose level one class shifts
SHIFT = 2.2  # of such a level, in deviations of the level


def generate(samples: int = 72, features: int = 2000, seed: int = 0) -> DataSet:
    """Thousands of features, few samples, few informative features, most correlated.

    Half of the genes follow one of the `PATHWAYS`, plus noise of the same size; the others are
    noise. `INFORMATIVE` pathways are shifted, up or down, in one class.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(CLASSES)), np.round(np.array(SHARES) * samples).astype(int))

    levels = rng.normal(size=(len(labels), PATHWAYS))
    shifted_class = np.arange(INFORMATIVE) % len(CLASSES)
    shift = rng.choice([-SHIFT, SHIFT], size=INFORMATIVE)
    levels[:, :INFORMATIVE] += np.where(labels[:, None] == shifted_class, shift, 0.0)

    expression = rng.normal(size=(len(labels), features))
    followers = rng.permutation(features)[: features // 2]
    pathway = np.arange(len(followers)) % PATHWAYS
    expression[:, followers] += levels[:, pathway]

    informative = int((pathway < INFORMATIVE).sum())
    source = f"generated, {informative} of {features:,} features informative, seed {seed}"
    return make_data_set("generated", source, expression, np.array(CLASSES)[labels])
