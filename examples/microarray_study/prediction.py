"""Fits the classifier on all samples of a table, saves it, and predicts new samples with it."""

from __future__ import annotations

import csv
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from microarray_study.data_set import DataSet
from microarray_study.errors import InputError
from microarray_study.readers import Reading, read_samples
from microarray_study.readers.entry import stem_of
from microarray_study.results_file import make_folder, replacing
from microarray_study.settings import Settings

KIND = "microarray classifier"


def fit_and_save(data: DataSet, reading: Reading, settings: Settings, path: Path) -> None:
    """Fit `TrulySparseClassifier` on all samples and write it with what new samples need.

    The file is a joblib pickle of a dict: `classifier`, whose `predict` takes float32 tables with
    the columns `feature_names` and gives the names of classes, `medians` (features,) of the
    training table, `reading`, `source`, `versions`. A failure leaves an earlier file as it was.

    Raises:
        InputError: the file cannot be written.
    """
    import joblib
    import sklearn
    import torch

    import torch_truly_sparse
    from torch_truly_sparse.estimators import TrulySparseClassifier

    torch.set_num_threads(settings.threads)
    classifier = TrulySparseClassifier(
        max_epochs=settings.classifier_epochs, random_state=settings.seed
    )
    classifier.fit(data.features, np.array(data.classes)[data.labels])
    content = {
        "kind": KIND,
        "classifier": classifier,
        "feature_names": list(data.feature_names),
        "medians": np.median(data.features, axis=0),
        "reading": asdict(reading),
        "source": data.source,
        "versions": {
            "python": platform.python_version(),
            "sklearn": sklearn.__version__,
            "torch": torch.__version__,
            "torch_truly_sparse": torch_truly_sparse.__version__,
        },
    }
    try:
        with replacing(path) as temporary:
            joblib.dump(content, temporary, compress=3)
    except OSError as error:
        raise InputError(f"--save {path}: cannot be written: {error}") from error


def load(path: Path) -> dict[str, Any]:
    """Read what `fit_and_save` wrote. Like every pickle, it can run code: load only what you trust.

    Raises:
        InputError: the file is not one of these, or was written by versions that do not fit.
    """
    import joblib

    try:
        content = joblib.load(path)
    except OSError as error:
        raise InputError(f"--predict {path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what an unpickler raises for a file that is none
        raise InputError(
            f"--predict {path}: is no model that --save wrote, or was written by other versions: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise InputError(f"--predict {path}: is no model that --save wrote")
    return content


def predict_file(model: dict[str, Any], path: Path, reading: Reading, folder: Path) -> Path:
    """Predict the samples of a file; write a line for each: name, class, a probability per class.

    Args:
        model: from `load`.
        path: of new samples, in any format, in any order of columns; labels in it are not read.
        reading: the options of this file.
        folder: for `NAME_predictions.csv`.

    Raises:
        InputError: the file cannot be read or lacks features, or the result cannot be written.
    """
    samples = read_samples(path, reading, model["feature_names"], model["medians"])
    for note in samples.notes:
        print(f"  {note}")
    classifier = model["classifier"]
    probabilities = classifier.predict_proba(samples.features)
    predicted = classifier.classes_[probabilities.argmax(axis=1)]
    make_folder(folder)
    result = folder / f"{stem_of(path)}_predictions.csv"
    try:
        with replacing(result) as temporary, temporary.open("w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f)
            writer.writerow(["sample", "predicted", *(f"p({c})" for c in classifier.classes_)])
            names = samples.sample_names
            for name, label, row in zip(names, predicted, probabilities, strict=True):
                writer.writerow([name, label, *(f"{p:.4f}" for p in row)])
    except OSError as error:
        raise InputError(f"{result}: cannot be written: {error}") from error
    counts = ", ".join(f"{label} {(predicted == label).sum()}" for label in classifier.classes_)
    print(f"{path.name}: {len(predicted)} samples: {counts}")
    print(f"Predictions: {result}")
    return result
