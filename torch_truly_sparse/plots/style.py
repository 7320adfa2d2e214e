"""Colours and axes that all pictures share."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart by colour-blind readers too.
BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#999999"


def axes_or_current(axes: Axes | None) -> Axes:
    """Return the axes to draw into, without the frame's upper and right line."""
    axes = plt.gca() if axes is None else axes
    axes.spines[["top", "right"]].set_visible(False)
    return axes
