"""Growth by gradient: what a gradient is made of is captured, then its largest entries found."""

from .capture import GradientCaptures, Pass, read_passes
from .search import CapturedGradient, Reduce, largest_empty_positions, one_thread

__all__ = [
    "CapturedGradient",
    "GradientCaptures",
    "Pass",
    "Reduce",
    "largest_empty_positions",
    "one_thread",
    "read_passes",
]
