"""Stratified splits, inner folds, and standardising by the training part alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microarray_study.data_set import DataSet, Features, Labels


@dataclass(frozen=True)
class Split:
    """The numbers of the samples to train on and of those to test on, rising."""

    train: Labels
    test: Labels


@dataclass(frozen=True)
class Parts:
    """The two parts of a data set, standardised with mean and deviation of the training part."""

    train_features: Features
    train_labels: Labels
    test_features: Features
    test_labels: Labels


def stratified_split(labels: Labels, test_fraction: float, seed: int) -> Split:
    """Take `test_fraction` of every class, rounded, for the test: at least 1, never all.

    So a class of 2 samples trains on one and is tested on the other. Every class must have at
    least 2 samples (`make_data_set` sees to that).
    """
    rng = np.random.default_rng(seed)
    train, test = [], []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held_out = int(len(members) * test_fraction + 0.5)
        held_out = min(max(held_out, 1), len(members) - 1)
        test.append(members[:held_out])
        train.append(members[held_out:])
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(test)))


def inner_folds(labels: Labels, folds: int, seed: int) -> list[tuple[Labels, Labels]]:
    """Cut a training part into `folds` stratified (train, validation) pairs of positions.

    A class of fewer samples than folds is validated in as many folds as it has samples; a class of
    one sample stays in training throughout, since a fold could not learn it otherwise.
    """
    rng = np.random.default_rng(seed)
    fold_of = np.full(len(labels), -1)
    dealt = 0  # deal on where the last class ended: the folds stay equally large
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            fold_of[members] = (dealt + np.arange(len(members))) % folds
            dealt += len(members)
    return [
        (np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))
        for fold in range(folds)
        if (fold_of == fold).any()
    ]


def standardise(data: DataSet, split: Split) -> Parts:
    """Subtract the training mean and divide by the training deviation, feature by feature.

    A feature that is constant in the training part is only centred.
    """
    known = data.features[split.train].astype(np.float64)
    mean = known.mean(axis=0)
    # Equal values make a feature constant; rounding keeps its deviation a little above zero.
    constant = known.min(axis=0) == known.max(axis=0)
    deviation = np.where(constant, 1.0, known.std(axis=0))

    def part(rows: Labels) -> Features:
        scaled: Features = ((data.features[rows] - mean) / deviation).astype(np.float32)
        return scaled

    return Parts(
        part(split.train), data.labels[split.train], part(split.test), data.labels[split.test]
    )
