"""Results as JSON: a file for each data set, complete after every run, which can go on."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microarray_study.data_set import DataSet
from microarray_study.errors import InputError
from microarray_study.results_file import make_folder, write_runs
from microarray_study.settings import METHODS, Settings

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """One method on one split of one data set.

    `accuracy` is that of the last epoch. The three lists of epochs are empty for what is not
    trained in epochs here; `seconds` is all of the training, tests left out. `top_features` holds
    the name, the importance and the selection frequency of the features that a method ranks first.
    """

    split: int  # from 1
    method: str
    seed: int
    accuracy: float
    test_samples: int
    weights: int  # connections that have a weight
    stored_weights: int  # numbers held for them
    seconds: float
    seconds_per_epoch: float | None  # median
    peak_bytes: int | None  # added to the process by building and training
    train_loss: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    evolution: dict[str, int] | None = None
    chosen: dict[str, float] | None = None
    truth: list[int] = field(default_factory=list)  # class of each test sample
    predicted: list[int] = field(default_factory=list)
    top_features: list[list[Any]] = field(default_factory=list)


@dataclass
class Results:
    """All runs on one data set, and what they have in common."""

    path: Path
    data_set: dict[str, Any]
    settings: dict[str, Any]
    environment: dict[str, str]
    runs: list[Run] = field(default_factory=list)

    def has(self, split: int, method: str) -> bool:
        """Whether this run is done."""
        return any(run.split == split and run.method == method for run in self.runs)

    def add(self, run: Run) -> None:
        """Add a run and write the file anew: whole, or not at all."""
        order = list(METHODS)
        runs = sorted([*self.runs, run], key=lambda r: (r.split, order.index(r.method)))
        head = {"schema": SCHEMA, "data_set": self.data_set}
        head |= {"settings": self.settings, "environment": self.environment}
        write_runs(self.path, head, [asdict(run) for run in runs])
        self.runs = runs

    def by_method(self) -> dict[str, list[Run]]:
        """The runs of each method that has any, in the order of `METHODS`."""
        methods = {m: [run for run in self.runs if run.method == m] for m in METHODS}
        return {method: runs for method, runs in methods.items() if runs}


def open_results(
    folder: Path, data: DataSet, settings: Settings, environment: dict[str, str], restart: bool
) -> Results:
    """Open the results of a data set in `folder`, with the runs that earlier calls have done.

    Raises `InputError` if the earlier runs come from other data, other settings or another machine:
    such figures must not stand in one table.
    """
    make_folder(folder)
    fresh = Results(
        folder / f"{data.name}.json",
        {
            "name": data.name,
            "source": data.source,
            "fingerprint": data.fingerprint,
            "samples": data.features.shape[0],
            "features": data.features.shape[1],
            "classes": data.class_sizes,
        },
        json.loads(json.dumps(asdict(settings))),  # as it will be read back: lists for tuples
        environment,
    )
    if restart or not fresh.path.exists():
        return fresh
    old = load_results(fresh.path)
    differences = [
        *_differences("data", old.data_set, fresh.data_set, ignore=("source",)),
        *_differences("", old.settings, fresh.settings),
        *_differences("", old.environment, fresh.environment),
    ]
    if differences:
        raise InputError(
            f"{fresh.path}: holds results of another setting ({'; '.join(differences)}); use "
            "--restart to replace them, or another --output to keep them"
        )
    return old


def load_results(path: Path) -> Results:
    """Read a file that `Results.add` has written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no readable results file: {error}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: expected results of schema {SCHEMA}, got {schema!r}")
    try:
        runs = [Run(**run) for run in content["runs"]]
        return Results(path, content["data_set"], content["settings"], content["environment"], runs)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: is no complete results file: {error}") from error


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Return the mean, and the sample deviation where there are at least two values."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _differences(
    what: str, old: dict[str, Any], new: dict[str, Any], ignore: tuple[str, ...] = ()
) -> list[str]:
    names = [name for name in {**old, **new} if name not in ignore]
    return [
        f"{what} {name}: {old.get(name)} there, {new.get(name)} now".strip()
        for name in names
        if old.get(name) != new.get(name)
    ]
