"""The layers that are timed: sizes, batches and densities."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A sparse layer and a batch.

    Attributes:
        in_features, out_features: number of input and output units.
        batch: number of samples.
        density: the fraction of all possible weights that the layer has.
    """

    in_features: int
    out_features: int
    batch: int
    density: float

    @property
    def nnz(self) -> int:
        """Number of weights."""
        return round(self.density * self.in_features * self.out_features)

    @property
    def size(self) -> str:
        """Everything but the density, as `1024x1024x128`."""
        return f"{self.in_features}x{self.out_features}x{self.batch}"

    def __str__(self) -> str:
        return f"{self.size}@{self.density:.4g}"


def _densities(in_features: int, out_features: int, batch: int, *densities: float) -> list[Shape]:
    return [Shape(in_features, out_features, batch, density) for density in densities]


# Where the fastest sparse library is compared with us: hidden layers of multilayer perceptrons,
# of transformers (640-2560, 768-3072), and of the wide networks with tiny batches for which
# Sparse Evolutionary Training was made.
PEERS = [
    *_densities(1024, 1024, 128, 0.3, 0.2, 0.1, 0.05, 0.01),
    *_densities(3072, 4000, 128, 0.1, 0.01),
    *_densities(640, 2560, 1024, 0.1),
    *_densities(768, 3072, 2048, 0.1, 0.02),
    *_densities(4096, 4096, 64, 0.1, 0.01),
    *_densities(3312, 3000, 2, 0.0128),
    *_densities(3312, 3000, 32, 0.0128),
    *_densities(20_000, 10_000, 32, 0.003),
]
# Where the dense layer is compared with us.
DENSE = [
    *_densities(1024, 1024, 128, 0.5, 0.3, 0.2, 0.1, 0.05, 0.01),
    *_densities(768, 3072, 2048, 0.1, 0.02),
    *_densities(3072, 4000, 128, 0.1, 0.01),
]
# From nearly empty to full: where the curve crosses the dense one.
BREAK_EVEN = _densities(1024, 1024, 128, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
# 12 million weights between 300,000 and 300,000 units: limited by memory alone.
STREAMING = _densities(300_000, 300_000, 2, 12e6 / 300_000**2)
QUICK = [*_densities(256, 256, 32, 0.02, 0.1, 0.5), *_densities(300, 200, 2, 0.05)]

GROUPS = {
    "peers": PEERS,
    "dense": DENSE,
    "break-even": BREAK_EVEN,
    "streaming": STREAMING,
    "quick": QUICK,
}


def parse_shapes(text: str) -> list[Shape]:
    """Read a list such as `peers,512x256x64@0.1`: names of groups, and single shapes.

    Returns:
        The shapes in the order of the text, each once.

    Raises:
        argparse.ArgumentTypeError: a part is neither a group nor a shape.
    """
    shapes: dict[Shape, None] = {}
    for part in text.split(","):
        shapes.update(dict.fromkeys(GROUPS[part] if part in GROUPS else [_parse_shape(part)]))
    return list(shapes)


def _parse_shape(text: str) -> Shape:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)@([\d.]+(?:e-?\d+)?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"must be a group ({', '.join(GROUPS)}) or in_features x out_features x batch @ "
            f"density, such as 512x256x64@0.1, got {text!r}"
        )
    in_features, out_features, batch = (int(match[i]) for i in (1, 2, 3))
    density = float(match[4])
    if not (in_features and out_features and batch and 0 < density <= 1):
        raise argparse.ArgumentTypeError(
            f"sizes must be at least 1 and the density in (0, 1], got {text!r}"
        )
    return Shape(in_features, out_features, batch, density)
