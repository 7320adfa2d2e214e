"""Whole models: from dense to truly sparse and back, and what that saves."""

from .densify import densify
from .sparsify import sparsify

__all__ = ["densify", "sparsify"]
