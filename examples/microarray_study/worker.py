"""One run, from the data to its figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from microarray_study.data_set import DataSet
from microarray_study.measuring import PeakMemory
from microarray_study.results import Run
from microarray_study.settings import ESTIMATORS, NETWORKS, Settings
from microarray_study.splits import Parts, standardise, stratified_split

if TYPE_CHECKING:
    import torch

TOP = 50  # features whose names are kept

Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Job:
    """Train `method` on split number `split` (from 1) of `data`."""

    data: DataSet
    method: str
    split: int
    settings: Settings

    @property
    def seed(self) -> int:
        """The seed, equal for all methods: they share the split, the batches and the topologies."""
        return self.settings.seed_of(self.split)


def run_job(job: Job, report: Report) -> Run:
    """Do a job in this process."""
    if job.method in ESTIMATORS:
        return _run_estimator(job)
    return _run_network(job, report) if job.method in NETWORKS else _run_classic(job)


def _run_estimator(job: Job) -> Run:
    """Fit the truly sparse classifier on the training part, as it is, and test it."""
    import torch

    from torch_truly_sparse.estimators import TrulySparseClassifier, rank_features

    settings, data = job.settings, job.data
    torch.set_num_threads(settings.threads)
    split = stratified_split(data.labels, settings.test_fraction, job.seed)
    features, labels = data.features[split.train], data.labels[split.train]
    tiny = TrulySparseClassifier(1, hidden_units=32, max_epochs=6, random_state=0)
    tiny.fit(features[:, :64], labels)  # loads what torch loads on first use
    with PeakMemory() as memory:
        started = time.perf_counter()
        classifier = TrulySparseClassifier(
            max_epochs=settings.classifier_epochs, random_state=job.seed
        ).fit(features, labels)
        seconds = time.perf_counter() - started
    predicted, truth = classifier.predict(data.features[split.test]), data.labels[split.test]
    ranking = rank_features(classifier)
    return Run(
        split=job.split,
        method=job.method,
        seed=job.seed,
        accuracy=float((predicted == truth).mean()),
        test_samples=len(truth),
        weights=classifier.n_weights_,
        stored_weights=classifier.n_weights_,
        seconds=seconds,
        seconds_per_epoch=seconds / classifier.n_iter_,
        peak_bytes=memory.added_bytes,
        truth=truth.tolist(),
        predicted=predicted.tolist(),
        top_features=[
            [data.name_of(int(column)), float(importance), float(frequency)]
            for column, importance, frequency in zip(
                ranking.columns[:TOP], ranking.importance, ranking.frequency, strict=False
            )
        ],
    )


def _run_network(job: Job, report: Report) -> Run:
    # Imported here: the classic way needs no torch, and measures its own memory without it.
    import torch

    from microarray_study import networks, training

    settings = job.settings
    torch.set_num_threads(settings.threads)
    split = stratified_split(job.data.labels, settings.test_fraction, job.seed)
    parts = standardise(job.data, split)

    def build(features: int, layout: Settings) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(job.seed)
        classes = len(job.data.classes)
        return networks.build_network(job.method, features, classes, layout, generator)

    _warm_up(build, parts, settings, job.seed)
    with PeakMemory() as memory:
        network = build(parts.train_features.shape[1], settings)
        curves, evolution = training.train(
            network,
            parts,
            settings,
            job.seed,
            lambda curves: report(
                {"loss": curves.train_loss[-1], "accuracy": curves.test_accuracy[-1]}
            ),
        )
    return Run(
        split=job.split,
        method=job.method,
        seed=job.seed,
        accuracy=curves.test_accuracy[-1],
        test_samples=len(parts.test_labels),
        weights=networks.connections(network),
        stored_weights=networks.stored_weights(network),
        seconds=sum(curves.seconds),
        seconds_per_epoch=statistics.median(curves.seconds),
        peak_bytes=memory.added_bytes,
        train_loss=curves.train_loss,
        test_accuracy=curves.test_accuracy,
        epoch_seconds=curves.seconds,
        evolution=training.evolution_summary(evolution),
    )


def _warm_up(
    build: Callable[[int, Settings], torch.nn.Module], parts: Parts, settings: Settings, seed: int
) -> None:
    """Train a tiny network of the same kind, so that torch loads what it loads on first use.

    Thread pools, autograd and kernels are some megabytes that belong to no network; a truly sparse
    one is not much larger than they are.
    """
    from microarray_study import training

    tiny = replace(settings, hidden=(64, 64), epsilon=2.0, epochs=2, lr=0.0)
    few = replace(
        parts,
        train_features=parts.train_features[:8, :64],
        train_labels=parts.train_labels[:8],
        test_features=parts.test_features[:8, :64],
        test_labels=parts.test_labels[:8],
    )
    training.train(build(few.train_features.shape[1], tiny), few, tiny, seed, lambda _: None)


def _run_classic(job: Job) -> Run:
    from microarray_study import two_phase

    split = stratified_split(job.data.labels, job.settings.test_fraction, job.seed)
    with PeakMemory() as memory:
        started = time.perf_counter()
        search = two_phase.fit_classic(
            job.data, split, job.settings, job.seed, select=job.method == "two_phase"
        )
        seconds = time.perf_counter() - started
    correct = search.predict(job.data.features[split.test]) == job.data.labels[split.test]
    weights = two_phase.weight_count(search)
    return Run(
        split=job.split,
        method=job.method,
        seed=job.seed,
        accuracy=float(correct.mean()),
        test_samples=len(split.test),
        weights=weights,
        stored_weights=weights,
        seconds=seconds,
        seconds_per_epoch=None,
        peak_bytes=memory.added_bytes,
        chosen=two_phase.chosen(search),
    )
