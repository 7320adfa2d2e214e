"""Results as JSON, a file that is complete after every run, and as a table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from microarray_study.errors import InputError
from microarray_study.results_file import make_folder, write_runs

from drop_in_study.settings import FORMS

SCHEMA = 1
MB = 1_000_000


@dataclass(frozen=True)
class Run:
    """One form of the transformer. Losses are nats a character; the loss is that of the last step.

    `evaluated_at` and `held_out_losses` have an entry for each evaluation, `train_losses` for each
    step.
    """

    form: str
    held_out_loss: float
    weights: int  # of all linear layers
    model_bytes: int  # parameters and buffers
    peak_bytes: int | None  # added to the process by building and training
    step_seconds: float  # median
    feed_forward_seconds: float  # of a step, all blocks, timed alone
    evaluated_at: list[int]
    held_out_losses: list[float]
    train_losses: list[float]


@dataclass
class Results:
    """The runs of one setting, and where they were made."""

    path: Path
    setting: dict[str, Any]  # settings, text and environment, as JSON gives them back
    runs: dict[str, Run] = field(default_factory=dict)

    def add(self, run: Run) -> None:
        """Add a run and write the file anew: whole, or not at all."""
        runs = {form: r for form in FORMS for r in [{**self.runs, run.form: run}.get(form)] if r}
        head = {"schema": SCHEMA, **self.setting}
        write_runs(self.path, head, [asdict(r) for r in runs.values()])
        self.runs = runs


def open_results(path: Path, setting: dict[str, Any], restart: bool) -> Results:
    """Open the results in a file; `InputError` if the file comes from another setting."""
    make_folder(path.parent)
    fresh = Results(path, json.loads(json.dumps(setting)))
    if restart or not path.exists():
        return fresh
    old = load_results(path)
    if old.setting != fresh.setting:
        changed = [key for key in fresh.setting if old.setting.get(key) != fresh.setting[key]]
        raise InputError(
            f"{path}: holds results of another setting ({', '.join(changed)} changed); use "
            "--restart to replace them, or another --output to keep them"
        )
    return old


def load_results(path: Path) -> Results:
    """Read a file that `Results.add` has written."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        runs = [Run(**run) for run in content.pop("runs")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: is no readable results file: {error}") from error
    return Results(path, content, {run.form: run for run in runs})


def table(results: Results) -> str:
    """Make a table: a line for each form, and one for the first relative to the second."""
    head = ["form", "held-out loss", "weights", "model MB", "peak MB", "step ms", "feed-forward ms"]
    rows = [
        [
            FORMS[run.form],
            f"{run.held_out_loss:.4f}",
            f"{run.weights:,}",
            f"{run.model_bytes / MB:.1f}",
            "-" if run.peak_bytes is None else f"{run.peak_bytes / MB:.0f}",
            f"{1000 * run.step_seconds:.1f}",
            f"{1000 * run.feed_forward_seconds:.1f}",
        ]
        for run in results.runs.values()
    ]
    if len(results.runs) == 2:
        dense, sparse = results.runs["dense"], results.runs["sparse"]
        rows.append(
            [
                "dense / sparse",
                f"{100 * (sparse.held_out_loss / dense.held_out_loss - 1):+.2f} %",
                f"{dense.weights / sparse.weights:.1f}x",
                f"{dense.model_bytes / sparse.model_bytes:.1f}x",
                f"{dense.peak_bytes / sparse.peak_bytes:.1f}x"
                if dense.peak_bytes and sparse.peak_bytes
                else "-",
                f"{dense.step_seconds / sparse.step_seconds:.2f}x",
                f"{dense.feed_forward_seconds / sparse.feed_forward_seconds:.2f}x",
            ]
        )
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])])
        for first, *others in [head, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
