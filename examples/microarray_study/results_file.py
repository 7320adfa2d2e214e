"""Writes results as JSON with one run a line, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from microarray_study.errors import InputError, RunError


def make_folder(folder: Path) -> None:
    """Make the folder that `--output` names, where there is none yet."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {folder}: cannot be made a folder: {error}") from error


def write_runs(path: Path, head: dict[str, Any], runs: Sequence[dict[str, Any]]) -> None:
    """Write what the runs have in common, and a line for each of them.

    Such a file is short enough to look into, and two of them can be compared line by line. A
    failure leaves the earlier file as it was.
    """
    lines = ",\n".join("    " + json.dumps(_rounded(run)) for run in runs)
    text = json.dumps(head, indent=2)[:-2] + f',\n  "runs": [\n{lines}\n  ]\n}}\n'
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, and in the end put it in the place of `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _rounded(value: Any) -> Any:
    """Round all numbers to six digits: no figure is measured more precisely."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value
