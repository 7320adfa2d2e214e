"""Draws results: losses and costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from microarray_study.picture import COLOURS, STYLE, draw_costs

from drop_in_study.results import MB, Results, Run
from drop_in_study.settings import FORMS

COSTS: tuple[tuple[str, str, Callable[[Run], float]], ...] = (
    ("time of a step", "ms", lambda run: 1000 * run.step_seconds),
    ("in the feed-forward layers", "ms", lambda run: 1000 * run.feed_forward_seconds),
    ("peak memory added", "MB", lambda run: (run.peak_bytes or 0) / MB),
    ("the model itself", "MB", lambda run: run.model_bytes / MB),
)


def draw(results: Results, path: Path) -> Path:
    """Draw loss curves and costs. Returns `path`."""
    settings = results.setting["settings"]
    with plt.rc_context(STYLE):
        figure, (losses, costs) = plt.subplots(
            ncols=2, figsize=(12, 4.4), layout="constrained", width_ratios=[3, 2]
        )
        _losses(losses, results)
        _costs(costs, results)
        figure.suptitle(
            f"A character transformer, width {settings['width']}, feed-forward "
            f"{settings['feed_forward']:,} at {settings['feed_forward_density']:.0%} density, "
            f"attention at {settings['attention_density']:.0%}",
            x=0.01,
            ha="left",
            fontsize=13,
            fontweight="bold",
        )
        figure.savefig(path)
        plt.close(figure)
    return path


def _losses(axes: Axes, results: Results) -> None:
    for form, run in results.runs.items():
        colour = COLOURS[form]
        label = f"{FORMS[form]}: {run.held_out_loss:.3f} at the end"
        axes.plot(run.evaluated_at, run.held_out_losses, color=colour, linewidth=2.5, label=label)
        steps = range(1, len(run.train_losses) + 1)
        axes.plot(steps, run.train_losses, color=colour, alpha=0.25, linewidth=0.8, zorder=0)
    axes.set_xlabel("step")
    axes.set_ylabel("nats a character")
    axes.set_title("Loss on held-out text (pale: on each batch)")
    axes.legend()


def _costs(axes: Axes, results: Results) -> None:
    """Bars relative to the first form, labelled with the figures."""
    base = next(iter(results.runs))
    figures = {
        title: {form: figure_of(run) for form, run in results.runs.items()}
        for title, _, figure_of in COSTS
    }
    labels = {title: partial(_labelled, unit) for title, unit, _ in COSTS}
    draw_costs(axes, figures, labels, base, f"{FORMS[base]} form")


def _labelled(unit: str, figure: float) -> str:
    return f"{figure:,.0f} {unit}"
