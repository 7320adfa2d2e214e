"""Generated samples: each class shifts features of its own, up or down."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from data_parallel_study.settings import Settings

SHIFT = 0.15  # of an informative feature, in deviations of its noise


@dataclass(frozen=True)
class Samples:
    """Features (n, features) and classes (n,)."""

    features: Tensor
    classes: Tensor

    def __len__(self) -> int:
        return len(self.classes)

    def of(self, numbers: Tensor) -> Samples:
        """Return some of the samples."""
        return Samples(self.features[numbers], self.classes[numbers])


def generate(settings: Settings) -> tuple[Samples, Samples]:
    """Generate samples to train on and a quarter as many to test on, equal on every rank."""
    generator = torch.Generator().manual_seed(settings.seed)
    count = settings.samples + settings.samples // 4
    signs = torch.randint(-1, 2, (settings.classes, settings.features), generator=generator)
    classes = torch.randint(settings.classes, (count,), generator=generator)
    features = torch.randn(count, settings.features, generator=generator)
    features += SHIFT * signs[classes]
    every = Samples(features, classes)
    numbers = torch.arange(count)
    return every.of(numbers[: settings.samples]), every.of(numbers[settings.samples :])
