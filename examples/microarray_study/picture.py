"""Draws results: accuracy, confusion, features; learning and cost of the networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from microarray_study import classifier_picture as classifier
from microarray_study.results import Results, Run, mean_and_deviation
from microarray_study.settings import METHODS, NETWORKS
from microarray_study.table import epoch_seconds, median, peak_mb, stored

# Okabe and Ito's palette: told apart by colour-blind readers too, and in grey.
COLOURS = {
    "classifier": "#0072B2",
    "sparse": "#CC79A7",
    "masked": "#56B4E9",
    "dense": "#D55E00",
    "two_phase": "#009E73",
    "svm": "#666666",
}
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.edgecolor": "#888888",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "figure.dpi": 150,
}
# The cost of a network: its name, its figure, and how a bar is labelled.
COSTS: tuple[tuple[str, Callable[[Run], float | None], Callable[[float], str]], ...] = (
    ("weights stored", stored, "{:,.0f}".format),
    ("time of an epoch", epoch_seconds, lambda seconds: f"{1000 * seconds:,.0f} ms"),
    ("peak memory added", peak_mb, "{:,.0f} MB".format),
)


def draw_data_set(results: Results, path: Path) -> Path:
    """Draw one data set: accuracies and, of the classifier, confusions and features.

    Returns `path`.
    """
    with plt.rc_context(STYLE):
        runs = [run for run in results.by_method().get("classifier", []) if run.predicted]
        classes = list(results.data_set["classes"])
        figure = plt.figure(figsize=(13 if runs else 7, 4.6), layout="constrained")
        columns = figure.add_gridspec(1, 3 if runs else 1, wspace=0.06)
        _accuracies(figure.add_subplot(columns[0, 0]), results)
        if runs:
            classifier.draw_confusion(figure.add_subplot(columns[0, 1]), runs, classes)
            classifier.draw_top_features(figure.add_subplot(columns[0, 2]), runs)
        _title(figure, results)
        return _save(figure, path)


def draw_networks(results: Results, path: Path) -> Path:
    """Draw the learning curves and the costs of the networks of one data set. Returns `path`."""
    with plt.rc_context(STYLE):
        networks = {m: runs for m, runs in results.by_method().items() if m in NETWORKS}
        figure = plt.figure(figsize=(9, 4.6), layout="constrained")
        columns = figure.add_gridspec(2, 2, wspace=0.06)
        above, below = figure.add_subplot(columns[0, 0]), figure.add_subplot(columns[1, 0])
        _curves(above, below, networks)
        _costs(figure.add_subplot(columns[:, 1]), networks)
        _title(figure, results)
        return _save(figure, path)


def _title(figure: Figure, results: Results) -> None:
    about = results.data_set
    figure.suptitle(
        f"{about['name']}: {about['samples']} samples, {about['features']:,} features, "
        f"{len(about['classes'])} classes",
        x=0.01,
        ha="left",
        fontsize=14,
        fontweight="bold",
    )


def draw_overview(every: list[Results], path: Path) -> Path:
    """Draw the accuracies and the costs of several data sets. Returns `path`."""
    with plt.rc_context(STYLE):
        # Costs are relative to the dense network: without one there are none to show.
        costs = COSTS if any("dense" in results.by_method() for results in every) else ()
        figure, axes = plt.subplots(
            ncols=1 + len(costs),
            figsize=(7 + 2 * len(costs), 1.9 + 0.6 * len(every)),
            layout="constrained",
            sharey=True,
            squeeze=False,
            width_ratios=[2] + [1] * len(costs),
        )
        _overview_accuracies(axes[0, 0], every)
        for column, (title, figure_of, _) in zip(axes[0, 1:], costs, strict=True):
            _overview_cost(column, every, title, figure_of)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return path


def _accuracies(axes: Axes, results: Results) -> None:
    """A dot a split, and a line at the mean."""
    by_method = results.by_method()
    for row, (method, runs) in enumerate(by_method.items()):
        values = [run.accuracy for run in runs]
        mean, _ = mean_and_deviation(values)
        colour = COLOURS[method]
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else [0.0]
        axes.scatter(values, row + np.array(offsets), s=42, color=colour, alpha=0.55, linewidths=0)
        axes.plot([mean, mean], [row - 0.27, row + 0.27], color=colour, linewidth=3)
        axes.annotate(
            f"{mean:.2f}", (mean, row - 0.32), ha="center", va="bottom", color=colour, weight="bold"
        )
    axes.set_yticks(range(len(by_method)), [METHODS[method] for method in by_method])
    axes.set_ylim(len(by_method) - 0.4, -0.75)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    _largest_class(axes, results)
    _percent_across(axes)
    axes.set_xlabel("test accuracy: a dot a split, the line is the mean")
    axes.set_title("Accuracy")


def _largest_class(axes: Axes, results: Results) -> None:
    """Mark what always naming the largest class would reach."""
    sizes = list(results.data_set["classes"].values())
    share = max(sizes) / sum(sizes)
    axes.axvline(share, color="#BBBBBB", linestyle=":", linewidth=1.2, zorder=0)
    axes.annotate(
        "largest class",
        (share, 0.995),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color="#888888",
    )


def _percent_across(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="x", color="#EEEEEE", linewidth=1)
    axes.set_axisbelow(True)


def _times_across(axes: Axes) -> None:
    """A logarithmic axis of ratios: 0.1x, 1x, 10x."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}x")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", color="#EEEEEE", linewidth=1)
    axes.set_axisbelow(True)


def _curves(above: Axes, below: Axes, networks: dict[str, list[Run]]) -> None:
    """Training loss and test accuracy over the epochs, the mean over the splits."""
    for method, runs in networks.items():
        # The twins run over each other: the one beneath wide, the one above dashed.
        width, dash = {"masked": (4.0, "-"), "sparse": (1.6, (0, (4, 2)))}.get(method, (1.6, "-"))
        order = list(NETWORKS)[::-1].index(method) + (2 if method == "sparse" else 0)
        for axes, curves in (
            (above, np.array([run.train_loss for run in runs])),
            (below, np.array([run.test_accuracy for run in runs])),
        ):
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(
                epochs,
                curves.mean(axis=0),
                color=COLOURS[method],
                linewidth=width,
                linestyle=dash,
                label=METHODS[method],
                zorder=2 + order,
            )
    above.set_yscale("log")
    above.set_title("Learning")
    above.set_ylabel("training loss")
    above.tick_params(labelbottom=False)
    below.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    below.set_ylabel("test accuracy")
    below.set_xlabel("epoch (mean over the splits)")
    above.legend(fontsize=8, loc="best")
    for axes in (above, below):
        axes.grid(color="#EEEEEE", linewidth=1)


def _costs(axes: Axes, networks: dict[str, list[Run]]) -> None:
    """Bars relative to the dense network, or the last there is, labelled with the figures."""
    base = list(networks)[-1]
    figures = {
        title: {method: median(runs, figure_of) for method, runs in networks.items()}
        for title, figure_of, _ in COSTS
    }
    draw_costs(axes, figures, {title: label for title, _, label in COSTS}, base, METHODS[base])


def draw_costs(
    axes: Axes,
    costs: Mapping[str, Mapping[str, float | None]],
    labels: Mapping[str, Callable[[float], str]],
    base: str,
    base_name: str,
) -> None:
    """Draw a group of bars for each cost, each bar relative to that of `base`.

    Args:
        axes: where to draw.
        costs: for each cost, the figure of each competitor that has one; keys of `COLOURS`.
        labels: for each cost, how a figure is written at the end of its bar.
        base: the competitor that all are relative to.
        base_name: how it is called below the axis.
    """
    for group, (title, figures) in enumerate(costs.items()):
        height = 0.8 / len(figures)
        whole = figures[base]
        for place, (competitor, value) in enumerate(figures.items()):
            if not value or not whole:
                continue
            y = group + (place - (len(figures) - 1) / 2) * height
            axes.barh(y, value / whole, height * 0.9, color=COLOURS[competitor])
            axes.annotate(
                labels[title](value),
                (value / whole, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    axes.margins(x=0.2)
    axes.set_ylim(len(costs) - 0.45, -0.55)
    axes.set_yticks(range(len(costs)), list(costs))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter("{x:g}x")
    axes.grid(axis="x", color="#EEEEEE", linewidth=1)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"relative to the {base_name}")
    axes.set_title("Cost")


def _overview_accuracies(axes: Axes, every: list[Results]) -> None:
    methods = [m for m in METHODS if any(m in results.by_method() for results in every)]
    for place, method in enumerate(methods):
        points = [
            (mean_and_deviation([run.accuracy for run in results.by_method()[method]]), row)
            for row, results in enumerate(every)
            if method in results.by_method()
        ]
        offset = (place - (len(methods) - 1) / 2) * 0.14
        axes.errorbar(
            [mean for (mean, _), _ in points],
            [row + offset for _, row in points],
            xerr=[deviation or 0.0 for (_, deviation), _ in points],
            fmt="o",
            markersize=6,
            color=COLOURS[method],
            ecolor=COLOURS[method] + "66",
            elinewidth=2,
            label=METHODS[method],
        )
    axes.set_yticks(range(len(every)), [results.data_set["name"] for results in every])
    axes.set_ylim(len(every) - 0.5, -0.5)
    _percent_across(axes)
    axes.set_xlabel("test accuracy: mean and deviation over the splits")
    axes.set_title("Accuracy")


def _overview_cost(
    axes: Axes, every: list[Results], title: str, figure_of: Callable[[Run], float | None]
) -> None:
    for row, results in enumerate(every):
        by_method = results.by_method()
        base = median(by_method.get("dense", []), figure_of)
        for place, method in enumerate(NETWORKS):
            value = median(by_method.get(method, []), figure_of)
            if value and base:
                y = row + (place - 1) * 0.14  # equal ones beside each other
                axes.scatter(value / base, y, s=44, color=COLOURS[method], zorder=3)
    axes.margins(x=0.15)
    _times_across(axes)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("relative to dense")
    axes.set_title(title)
