"""Results as text: a table for the terminal, and Markdown tables for a page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable

from microarray_study.results import Results, Run, mean_and_deviation
from microarray_study.settings import CLASSIC, METHODS

MB = 1_000_000


def text_table(results: Results) -> str:
    """Make the table of one data set: a line for each method."""
    head = ("method", "accuracy", "splits", "weights", "stored", "s/epoch", "s in all", "peak MB")
    rows = [
        (
            METHODS[method],
            accuracy(runs),
            str(len(runs)),
            shown(median(runs, weights), "{:,.0f}"),
            shown(median(runs, stored), "{:,.0f}"),
            shown(median(runs, epoch_seconds), "{:.3f}"),
            shown(median(runs, all_seconds), "{:.1f}"),
            shown(median(runs, peak_mb), "{:,.1f}"),
        )
        for method, runs in results.by_method().items()
    ]
    return "\n".join(_aligned([head, *rows]))


def markdown_tables(all_results: list[Results]) -> str:
    """Make two tables of several data sets: accuracies, and the costs of the networks."""
    present = {method for results in all_results for method in results.by_method()}
    methods = [method for method in METHODS if method in present]
    accuracies = [["data set", "samples x features", "classes", *(METHODS[m] for m in methods)]]
    costs = [["data set", "method", "weights", "stored", "s/epoch", "peak MB"]]
    for results in all_results:
        by_method, about = results.by_method(), results.data_set
        name = about["name"]
        size = f"{about['samples']} x {about['features']:,}"
        cells = [accuracy(by_method[m]) if m in by_method else "" for m in methods]
        accuracies.append([name, size, str(len(about["classes"])), *cells])
        for method, runs in by_method.items():
            if method not in CLASSIC:
                costs.append(
                    [
                        name,
                        METHODS[method],
                        shown(median(runs, weights), "{:,.0f}"),
                        shown(median(runs, stored), "{:,.0f}"),
                        shown(median(runs, epoch_seconds), "{:.3f}"),
                        shown(median(runs, peak_mb), "{:,.1f}"),
                    ]
                )
    tables = [accuracies, costs] if len(costs) > 1 else [accuracies]
    return "\n\n".join(_markdown(table) for table in tables)


def accuracy(runs: list[Run]) -> str:
    """Show mean and deviation over the splits, at the last epoch."""
    mean, deviation = mean_and_deviation([run.accuracy for run in runs])
    return f"{mean:.3f}" if deviation is None else f"{mean:.3f} ± {deviation:.3f}"


def weights(run: Run) -> float:
    """Return the number of connections that have a weight."""
    return run.weights


def stored(run: Run) -> float:
    """Return how many numbers are stored for the weights."""
    return run.stored_weights


def epoch_seconds(run: Run) -> float | None:
    """Return the median training seconds of an epoch; None for a method without epochs."""
    return run.seconds_per_epoch


def all_seconds(run: Run) -> float:
    """Return the seconds of the whole training."""
    return run.seconds


def peak_mb(run: Run) -> float | None:
    """Return the memory added at the peak, in millions of bytes."""
    return None if run.peak_bytes is None else run.peak_bytes / MB


def median(runs: list[Run], figure: Callable[[Run], float | None]) -> float | None:
    """Return the median of a figure over the splits that have it."""
    values = [value for value in map(figure, runs) if value is not None]
    return statistics.median(values) if values else None


def shown(value: float | None, form: str) -> str:
    """Show the figure, or a dash where there is none."""
    return "-" if value is None else form.format(value)


def _aligned(rows: list[tuple[str, ...]]) -> Iterable[str]:
    """Align the first column left and the others right, with a rule under the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, (first, *others) in enumerate(rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])
        if number == 0:
            yield "-" * (sum(widths) + 2 * len(others))


def _markdown(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
