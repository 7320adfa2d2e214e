"""Draws what the truly sparse classifier decided, and by which features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from microarray_study.results import Run

BLUE = "#0072B2"
SHOWN = 15  # features that fit into the picture


def draw_confusion(axes: Axes, runs: Sequence[Run], classes: Sequence[str]) -> None:
    """Draw how many test samples of each class were taken for which, over all splits."""
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    for run in runs:
        np.add.at(counts, (run.truth, run.predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    size = 10 if len(classes) <= 6 else 7
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            colour = "white" if shares[row, column] > 0.6 else "#222222"
            axes.annotate(
                str(counts[row, column]), (column, row), ha="center", va="center", color=colour,
                fontsize=size,
            )  # fmt: skip
    names = [name if len(name) <= 14 else name[:13] + "\N{HORIZONTAL ELLIPSIS}" for name in classes]
    axes.set_xticks(range(len(classes)), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(len(classes)), names, fontsize=size)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted by the truly sparse classifier")
    axes.set_ylabel("true class")
    axes.set_title("Test samples of all splits")


def top_features(runs: Sequence[Run], shown: int = SHOWN) -> list[tuple[str, float, float]]:
    """Return name, mean importance and mean selection frequency of the best features.

    Means over the splits; a feature that is not among those kept of a split counts as 0 there.
    """
    importance: dict[str, float] = {}
    frequency: dict[str, float] = {}
    for run in runs:
        for name, value, often in run.top_features:
            importance[name] = importance.get(name, 0.0) + value / len(runs)
            frequency[name] = frequency.get(name, 0.0) + often / len(runs)
    best = sorted(importance, key=lambda name: (-importance[name], name))[:shown]
    return [(name, importance[name], frequency[name]) for name in best]


def draw_top_features(axes: Axes, runs: Sequence[Run]) -> None:
    """Draw a bar for each of the best features; darker ones are chosen by more members."""
    best = top_features(runs)
    for row, (_, value, often) in enumerate(best):
        axes.barh(row, 100 * value, color=BLUE, alpha=0.25 + 0.75 * min(often, 1.0))
    axes.set_yticks(range(len(best)), [name for name, _, _ in best], fontsize=8)
    axes.set_ylim(len(best) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("importance in % (darker: chosen by more members)")
    axes.set_title("Top features")
