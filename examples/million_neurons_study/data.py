"""The samples: generated ones of the shape of the lung data, or those of a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from microarray_study import readers
from microarray_study.data_set import DataSet, Features, Labels
from microarray_study.splits import Parts, standardise, stratified_split

from million_neurons_study.settings import Settings

INFORMATIVE = 0.1  # share of the features that one class shifts
SHIFT = 2.0  # of such a feature, in deviations of its noise


def load(path: Path, label: str | None, settings: Settings) -> tuple[Settings, DataSet]:
    """Read a data set; return it, and the settings with its inputs, classes and samples."""
    data = readers.read(path, readers.Reading(label=label))
    samples, inputs = data.features.shape
    sizes = {"inputs": inputs, "classes": len(data.classes), "samples": samples}
    return replace(settings, **sizes), data


def parts_of(data: DataSet, settings: Settings) -> Parts:
    """Split every class into two thirds to train on and a third to test on, standardised."""
    split = stratified_split(data.labels, settings.test_fraction, settings.seed)
    return standardise(data, split)


def generate(settings: Settings) -> Parts:
    """Generate noise in which a share of the features is shifted, each in one class."""
    rng = np.random.default_rng(settings.seed)
    labels: Labels = rng.permutation(np.arange(settings.samples) % settings.classes)
    features: Features = rng.standard_normal((settings.samples, settings.inputs), dtype=np.float32)
    shifted = rng.permutation(settings.inputs)[: max(1, round(INFORMATIVE * settings.inputs))]
    shift = rng.choice(np.array([-SHIFT, SHIFT], dtype=np.float32), size=len(shifted))
    tells = np.arange(len(shifted)) % settings.classes  # the class that each of them tells
    features[:, shifted] += shift * (labels[:, None] == tells)
    trained = settings.samples - round(settings.samples * settings.test_fraction)
    return Parts(features[:trained], labels[:trained], features[trained:], labels[trained:])
