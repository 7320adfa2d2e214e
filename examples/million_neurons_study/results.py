"""Results as text, as JSON, and as the tables of docs/million_neurons.md."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from microarray_study.errors import InputError

from million_neurons_study.settings import Settings
from million_neurons_study.training import Outcome

SCHEMA = 1
HEAD = (
    "neurons",
    "weights",
    "building s",
    "training s/epoch",
    "evolution s/epoch",
    "peak MB",
    "bytes/weight",
    "threads",
)


def as_json(
    settings: Settings, source: str, threads: int, where: dict[str, str], outcome: Outcome
) -> dict[str, Any]:
    """Return all of a run as plain values."""
    return {
        "schema": SCHEMA,
        "data": source,
        "settings": asdict(settings) | {"learning_rate": settings.rate},
        "threads": threads,
        "environment": where,
        "outcome": outcome.as_dict(),
    }


def save(path: Path, result: dict[str, Any]) -> None:
    """Write a result; raise `InputError` where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def load(path: Path) -> dict[str, Any]:
    """Read a result."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or "outcome" not in result:
        raise InputError(f"{path}: is no result of million_neurons.py --json")
    return result


def row(result: dict[str, Any]) -> list[str]:
    """Return one run in the columns of `HEAD`, with medians over its epochs."""
    outcome = result["outcome"]
    training = [epoch["training_seconds"] for epoch in outcome["epochs"]]
    evolving = [epoch["evolution_seconds"] for epoch in outcome["epochs"][:-1]]
    peak = outcome["peak_bytes"]
    return [
        f"{outcome['neurons']:,}",
        f"{outcome['weights']:,}",
        f"{outcome['building_seconds']:.3g}",
        f"{statistics.median(training):.3g}",
        f"{statistics.median(evolving):.3g}" if evolving else "-",
        f"{peak / 1e6:,.0f}" if peak is not None else "-",
        f"{peak / outcome['weights']:.1f}" if peak is not None else "-",
        str(result["threads"]),
    ]


def text_table(result: dict[str, Any]) -> str:
    """Show one run, a line for each figure."""
    width = max(map(len, HEAD))
    lines = [f"{name:<{width}}  {cell}" for name, cell in zip(HEAD, row(result), strict=True)]
    outcome = result["outcome"]
    losses = ", ".join(f"{epoch['loss']:.3f}" for epoch in outcome["epochs"])
    lines.append(f"{'loss by epoch':<{width}}  {losses}")
    lines.append(f"{'test accuracy':<{width}}  {outcome['accuracy']:.3f}")
    return "\n".join(lines)


def markdown_table(results: list[dict[str, Any]]) -> str:
    """Show several runs, the smallest first, as a Markdown table."""
    results = sorted(results, key=lambda result: int(result["outcome"]["neurons"]))
    rows = [list(HEAD), ["---:"] * len(HEAD), *map(row, results)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
