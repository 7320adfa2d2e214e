"""The runs that are done: a file of JSON lines, which a stopped campaign goes on with."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .data_sets import DataSet, Split
from .methods import Method


@dataclass(frozen=True)
class Run:
    """One method on one split.

    Attributes:
        data_set, fingerprint, split, method, settings, version: what was run.
        accuracy: share of the test samples that were right.
        balanced: mean over the classes of the test part of the share that was right.
        fit_seconds, predict_seconds: with one thread, unless the command said otherwise.
        weights: number of weights, or of nodes of trees.
    """

    data_set: str
    fingerprint: str
    split: int
    method: str
    settings: dict[str, Any]
    version: int
    accuracy: float
    balanced: float
    fit_seconds: float
    predict_seconds: float
    weights: int


def key_of(fingerprint: str, split: int, method: Method) -> str:
    """Return what tells a run from all others: data, split, and all that the method is given."""
    parts = [fingerprint, split, method.fit.__name__, method.all_settings(), method.version]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


class Store:
    """The runs of one file.

    Args:
        path: read if it exists; each run is appended as one line. A last line that was cut off
            when the program was killed is ignored.

    Raises:
        ValueError: a line before the last is no run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: dict[str, Run] = {}
        self._broken_end = False
        if path.exists():
            lines = path.read_text(encoding="utf-8").split("\n")
            self._broken_end = bool(lines[-1])
            for number, line in enumerate(lines[:-1], start=1):
                try:
                    record = json.loads(line)
                    key = record.pop("key")
                    run = Run(**record)
                except (ValueError, TypeError, KeyError) as error:
                    raise ValueError(f"{path}, line {number}: is no run: {error}") from error
                self._runs[key] = run

    def __len__(self) -> int:
        return len(self._runs)

    def has(self, data: DataSet, split: Split, method: Method) -> bool:
        """Whether this run is done."""
        return key_of(data.fingerprint, split.number, method) in self._runs

    def add(self, data: DataSet, split: Split, method: Method, run: Run) -> None:
        """Append a run to the file."""
        key = key_of(data.fingerprint, split.number, method)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._broken_end:
            content = self.path.read_text(encoding="utf-8")
            self.path.write_text(content[: content.rindex("\n") + 1 if "\n" in content else 0])
            self._broken_end = False
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **asdict(run)}) + "\n")
        self._runs[key] = run

    def of(self, data_set: str, method: Method) -> dict[int, Run]:
        """Return the runs of a method on a data set, by the number of the split."""
        found = {}
        for key, run in self._runs.items():
            same = run.data_set == data_set and key == key_of(run.fingerprint, run.split, method)
            if same:
                found[run.split] = run
        return dict(sorted(found.items()))
