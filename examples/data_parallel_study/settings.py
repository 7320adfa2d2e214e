"""What is trained, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """One training on several ranks."""

    samples: int = 6_000
    features: int = 784
    classes: int = 10
    hidden: int = 500
    epsilon: float = 20.0
    epochs: int = 10
    together: float = 0.7  # share of the epochs that phase 1 takes (Curci et al. 2021)
    batch_size: int = 120  # of all ranks together
    rate: float = 0.02
    momentum: float = 0.9
    fraction: float = 0.3
    regrow: str = "random"
    seed: int = 0

    @property
    def epochs_together(self) -> int:
        """Epochs of phase 1."""
        return round(self.together * self.epochs)
