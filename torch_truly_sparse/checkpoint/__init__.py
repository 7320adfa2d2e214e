"""Checkpoint files: written whole or not at all, read whole or not at all."""

from .file import load
from .rotation import newest
from .run import resume, save

__all__ = ["load", "newest", "resume", "save"]
