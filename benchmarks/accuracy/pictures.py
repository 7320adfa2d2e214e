"""Pictures of a table: accuracy against seconds of fit, and mean ranks."""

from __future__ import annotations

import statistics
from pathlib import Path

from .comparing import nemenyi_distance
from .methods import SHIPPED
from .report import Scores, ranked

OURS, OTHERS = "#0072B2", "#777777"


def draw_accuracy_against_seconds(scores: Scores, path: Path) -> Path:
    """Draw a point for each method: seconds of fit (logarithmic) and mean balanced accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    sets = scores.table.data_sets
    for name in scores.runs:
        mean = scores.overall(name, sets)
        if mean is None:
            continue
        seconds = statistics.median(
            statistics.median(run.fit_seconds for run in scores.runs[name][data].values())
            for data in sets
        )
        colour = OURS if name == SHIPPED else OTHERS
        axes.plot([max(seconds, 1e-3)], [100 * mean], "o", color=colour)
        axes.annotate(
            name, (max(seconds, 1e-3), 100 * mean), xytext=(6, 4), textcoords="offset points",
            fontsize=8, color=colour,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.12)
    axes.set_xlabel("seconds of a fit, tuning included (median over the sets)")
    axes.set_ylabel("balanced accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)
    return path


def draw_ranks(scores: Scores, path: Path) -> Path:
    """Draw the mean ranks, with a bar of the critical difference (Demsar 2006)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names, ranks, sets = ranked(scores)
    order = sorted(range(len(names)), key=lambda place: ranks[place])
    distance = nemenyi_distance(len(names), sets)
    figure, axes = plt.subplots(
        figsize=(7.2, 0.32 * len(names) + 1.2), dpi=150, layout="constrained"
    )
    for row, place in enumerate(order):
        colour = OURS if names[place] == SHIPPED else OTHERS
        axes.plot([ranks[place]], [row], "o", color=colour)
        axes.annotate(
            f"{names[place]}  {ranks[place]:.1f}", (ranks[place], row), xytext=(8, -3),
            textcoords="offset points", fontsize=8, color=colour,
        )  # fmt: skip
    best = ranks[order[0]]
    axes.axvspan(best, best + distance, color=OURS, alpha=0.1, lw=0)
    axes.set_xlim(min(ranks) - 0.5, max(ranks) + 3)
    axes.set_yticks([])
    axes.invert_yaxis()
    axes.set_xlabel(
        f"mean rank over {sets} sets; shaded: not different from the best (Nemenyi, 5 %)"
    )
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)
    return path
