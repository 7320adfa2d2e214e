"""Growth by gradient: what a gradient is made of is captured, then its largest entries found."""

from .capture import GradientCaptures, Pass
from .search import CapturedGradient, Reduce, largest_empty_positions, one_thread

__all__ = [
    "CapturedGradient",
    "GradientCaptures",
    "Pass",
    "Reduce",
    "largest_empty_positions",
    "one_thread",
]
