"""Pictures of a training: what its evolution did over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes

from .recording import Recording, check_recording
from .style import BLUE, GREY, ORANGE, axes_or_current


def degrees_over_time(
    recording: Recording,
    layer: str | None = None,
    side: str = "inputs",
    axes: Axes | None = None,
) -> Axes:
    """Draw the distribution of the degrees of a layer after each evolution.

    Units that are chosen more and more often show as a tail that rises; units that lose all of
    their connections gather at the bottom.

    Args:
        recording: of an evolution.
        layer: name of the layer; None takes the first.
        side: `"inputs"` (connections that leave each input unit) or `"outputs"` (those that arrive
            at each output unit).
        axes: where to draw; None takes the current axes.

    Returns:
        The axes: the median, the middle half, the middle 98 % and the largest of the degrees
        against optimizer steps.

    Raises:
        TypeError: `recording` is no `Recording`.
        ValueError: there is no such layer or side.
    """
    check_recording(recording)
    if side not in ("inputs", "outputs"):
        raise ValueError(f"`side` must be 'inputs' or 'outputs', got {side!r}")
    name, recorded = recording.layer(layer)
    counts = recorded.fan_out if side == "inputs" else recorded.fan_in
    shares = (0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
    lines = list(zip(*(quantiles(each, shares) for each in counts), strict=True))
    lowest, lower, median, upper, high, largest = lines
    axes = axes_or_current(axes)
    axes.fill_between(recorded.steps, lowest, high, color=BLUE, alpha=0.15, label="98 % of units")
    axes.fill_between(recorded.steps, lower, upper, color=BLUE, alpha=0.35, label="half of units")
    axes.plot(recorded.steps, median, color=BLUE, label="median")
    axes.plot(recorded.steps, largest, color=GREY, linestyle=":", label="largest")
    axes.set(
        xlabel="optimizer steps",
        ylabel="connections of a unit",
        title=f"Degrees of the {side} of {name or 'the layer'}",
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="lower center", ncols=2, fontsize="small")
    return axes


def quantiles(counts: torch.Tensor, shares: Sequence[float]) -> list[int]:
    """Give the smallest degree that at least each share of the units does not exceed.

    Args:
        counts: (largest degree + 1,) int64, how many units have each degree.
        shares: between 0 and 1.
    """
    running = counts.cumsum(0)
    if not len(running) or not running[-1]:
        return [0] * len(shares)
    wanted = (torch.tensor(shares, dtype=torch.float64) * running[-1]).ceil().clamp_min(1).long()
    return torch.searchsorted(running, wanted).tolist()


def loss_and_turnover(
    recording: Recording,
    losses: Sequence[float],
    steps: Sequence[int] | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draw the loss of a training, and under it the share of connections that each evolution took.

    Args:
        recording: of its evolution.
        losses: one number for each optimizer step or epoch.
        steps: optimizer steps taken at each loss; None says that there is one for each step.
        axes: where to draw the loss; None takes the current axes. The turnover has an axis of its
            own on the right.

    Returns:
        The axes of the loss.

    Raises:
        TypeError: `recording` is no `Recording`.
        ValueError: `steps` are not as many as `losses`.
    """
    check_recording(recording)
    places = list(range(1, len(losses) + 1)) if steps is None else list(steps)
    if len(places) != len(losses):
        raise ValueError(f"`steps` must be as many as the {len(losses)} losses, got {len(places)}")
    axes = axes_or_current(axes)
    axes.plot(places, list(losses), color=BLUE)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel("loss", color=BLUE)
    axes.set_title("Loss and replaced connections")
    right = axes.twinx()
    right.spines["top"].set_visible(False)
    for number, (name, recorded) in enumerate(recording.layers.items()):
        right.plot(
            recorded.steps[1:],
            [100 * share for share in recorded.turnover[1:]],
            color=ORANGE,
            alpha=0.9 if number == 0 else 0.45,
            marker=".",
            linestyle="--",
            label=name or "(model)",
        )
    right.set_ylim(bottom=0)
    right.set_ylabel("replaced connections in percent", color=ORANGE)
    if len(recording.layers) > 1:
        right.legend(frameon=False, title="layer", loc="center right")
    return axes
