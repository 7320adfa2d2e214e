"""How the fraction of replaced connections changes during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Gives the fraction of connections to replace."""

    def __call__(self, step: int) -> float:
        """Give the fraction in [0, 1] after `step` optimizer steps."""
        ...  # pragma: no cover


@dataclass(frozen=True)
class Constant:
    """The same fraction at every evolution (SET: 0.3)."""

    fraction: float

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ValueError(f"`fraction` must lie in [0, 1], got {self.fraction}")

    def __call__(self, step: int) -> float:
        """Give the fraction."""
        return self.fraction
