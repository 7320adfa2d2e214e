"""Draws results as pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter

from .competitors import COMPETITORS, OURS, Dense, TrulySparse
from .growth import Sweep, curve, large_half, sweeps_in
from .results import BOTH, FORWARD, Results
from .shapes import Shape

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {
    "torch_truly_sparse": "#0072B2",
    "dense": "#222222",
    "masked dense": "#999999",
    "torch CSR": "#E69F00",
    "torch-sparse": "#CC79A7",
    "SparseProp": "#009E73",
    "SparseLab": "#D55E00",
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
TITLES = {BOTH: "Forward and backward", FORWARD: "Forward alone"}


def draw_density(results: Results, path: Path) -> Path:
    """Draw speed relative to the dense layer against density, the break-even marked.

    The picture shows the size that was measured at the most densities.

    Returns:
        `path`.

    Raises:
        ValueError: no size was measured at two densities with the dense layer.
    """
    shapes = _most_densities(results)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(12, 5.2), layout="constrained", sharey=True)
        for panel, measure in zip(axes, (BOTH, FORWARD), strict=True):
            _speeds(panel, results, shapes, measure)
        axes[0].set_ylabel("times as fast as the dense layer")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        first = shapes[0]
        _title(
            figure,
            f"{first.in_features:,} inputs, {first.out_features:,} outputs, batch {first.batch:,}; "
            f"{_threads(results)}",
        )
        return _save(figure, path)


def break_even(densities: Sequence[float], speeds: Sequence[float]) -> float | None:
    """Find the density at which the speed falls to 1, interpolated between logarithms.

    Args:
        densities: rising.
        speeds: relative to the dense layer.

    Returns:
        The largest density at which the curve crosses 1 downwards; None if it does not.
    """
    for right in range(len(speeds) - 1, 0, -1):
        above, below = speeds[right - 1], speeds[right]
        if above >= 1 > below:
            part = math.log(above) / math.log(above / below)
            low, high = math.log(densities[right - 1]), math.log(densities[right])
            return math.exp(low + part * (high - low))
    return None


def draw_threads(results: Results, path: Path) -> Path:
    """Draw how many times as fast the layers are with all threads as with one.

    Returns:
        `path`.

    Raises:
        ValueError: only 1 thread was measured.
    """
    most = results.thread_counts[-1]
    if most == 1:
        raise ValueError("the plot needs more than 1 thread")
    shapes = results.shapes
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 1.6 + 0.5 * len(shapes)), layout="constrained")
        for offset, kind in ((-0.19, TrulySparse), (0.19, Dense)):
            gains = [results.speedup(shape, kind.name, most) for shape in shapes]
            known = [(row + offset, gain) for row, gain in enumerate(gains) if gain is not None]
            rows, widths = [row for row, _ in known], [gain for _, gain in known]
            bars = axes.barh(rows, widths, 0.34, color=COLOURS[kind.name], label=kind.name)
            axes.bar_label(bars, [f" {gain:.2f}" for gain in widths], color=COLOURS[kind.name])
        axes.axvline(most, color="#888888", linewidth=1, linestyle=":")
        axes.set_yticks(range(len(shapes)), [_label(shape) for shape in shapes])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"times as fast with {most} threads as with 1, forward and backward")
        figure.legend(loc="outside upper right", ncols=2)
        return _save(figure, path)


def draw_scaling(results: Results, path: Path) -> Path:
    """Draw time against the number of weights, the batch and the width, with lines of slope 1.

    Returns:
        `path`.
    """
    sweeps = sweeps_in(results)
    with plt.rc_context(STYLE):
        size = (4.4 * len(sweeps), 4.6)
        figure, axes = plt.subplots(
            1, len(sweeps), figsize=size, layout="constrained", squeeze=False
        )
        for panel, sweep in zip(axes.flat, sweeps, strict=True):
            _growth(panel, results, sweep)
        axes.flat[0].set_ylabel("milliseconds")
        _title(figure, f"Growth of cost; {_threads(results)}")
        return _save(figure, path)


def _most_densities(results: Results) -> list[Shape]:
    """The shapes of one size, by rising density."""
    by_size: dict[str, list[Shape]] = {}
    for shape in results.shapes:
        if results.seconds(shape, Dense.name, BOTH) is not None:
            by_size.setdefault(shape.size, []).append(shape)
    shapes = max(by_size.values(), key=len, default=[])
    if len(shapes) < 2:
        raise ValueError("the plot needs one size at two or more densities, and the dense layer")
    return sorted(shapes, key=lambda shape: shape.density)


def _speeds(axes: Axes, results: Results, shapes: list[Shape], measure: str) -> None:
    for kind in COMPETITORS:
        densities, speeds = [], []
        for shape in shapes:
            own = results.seconds(shape, kind.name, measure)
            dense = results.seconds(shape, Dense.name, measure)
            if own is not None and dense is not None and kind is not Dense:
                densities.append(shape.density)
                speeds.append(dense / own)
        if speeds:
            ours = kind.name == OURS
            axes.plot(
                densities,
                speeds,
                marker="o",
                markersize=5 if ours else 3.5,
                linewidth=2.6 if ours else 1.3,
                color=COLOURS[kind.name],
                label=kind.name,
                zorder=3 if ours else 2,
            )
            if ours:
                _mark_break_even(axes, densities, speeds)
    axes.axhline(1, color=COLOURS["dense"], linewidth=1.3, label="dense")
    axes.set(xscale="log", yscale="log", title=TITLES[measure])
    axes.set_xlabel("density: the fraction of the weights that are there")
    _plain_numbers(axes.xaxis, FixedLocator([shape.density for shape in shapes]))
    _plain_numbers(axes.yaxis, LogLocator(subs=(1, 2, 5)))
    axes.grid(axis="y", color="#EEEEEE")


def _plain_numbers(axis: Axis, locator: FixedLocator | LogLocator) -> None:
    """Write 0.5 and 20 on a logarithmic axis, and nothing between."""
    axis.set_major_locator(locator)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


def _mark_break_even(axes: Axes, densities: list[float], speeds: list[float]) -> None:
    """Shade the densities at which sparse is faster, and name the last of them."""
    where = break_even(densities, speeds)
    faster = min(speeds) >= 1
    if where is None and not faster:
        return
    colour = COLOURS[OURS]
    end = densities[-1] if where is None else where
    text = "faster at\nevery density" if where is None else f"break-even\nat density {where:.2g}"
    axes.axvspan(densities[0], end, color=colour, alpha=0.06, linewidth=0)
    axes.axvline(end, color=colour, linewidth=1, linestyle=":")
    axes.annotate(
        text,
        (end, 0.02),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        color=colour,
        weight="bold",
    )


def _growth(axes: Axes, results: Results, sweep: Sweep) -> None:
    for measure, marker in ((BOTH, "o"), (FORWARD, "s")):
        sizes, seconds = curve(results, sweep, measure)
        colour = COLOURS[OURS] if measure == BOTH else "#56B4E9"
        power = large_half(sizes, seconds)
        axes.plot(
            sizes,
            [value * 1e3 for value in seconds],
            marker=marker,
            markersize=4,
            color=colour,
            label=f"{TITLES[measure].lower()}: power {power:.2f}",
        )
        line = [seconds[-1] * 1e3 * size / sizes[-1] for size in sizes]
        axes.plot(sizes, line, color="#888888", linewidth=1, linestyle=":", zorder=1)
    axes.plot([], [], color="#888888", linewidth=1, linestyle=":", label="linear")
    axes.set(xscale="log", yscale="log", xlabel=sweep.name, title=sweep.title)
    _plain_numbers(axes.xaxis, LogLocator(subs=(1,) if sizes[-1] > 100 * sizes[0] else (1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _plain_numbers(axes.yaxis, LogLocator())
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top * (top / bottom) ** 0.25)  # room for the legend
    axes.legend(loc="upper left")


def _label(shape: Shape) -> str:
    size = f"{shape.in_features:,} x {shape.out_features:,}"
    return f"{size}, batch {shape.batch:,}, {shape.density:.2g}"


def _threads(results: Results) -> str:
    threads = results.settings["threads"]
    return f"{results.machine['processor']}, {threads} thread{'s' if threads > 1 else ''}"


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=12)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
    return path
