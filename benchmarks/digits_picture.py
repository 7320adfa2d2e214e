"""Draws the picture of docs/plots.md: a sparse network learns to read digits.

python -m benchmarks.digits_picture docs/images/plots.png
"""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import plots

EPOCHS, BATCH = 60, 32


def main(path: str) -> None:
    """Train, and draw what the evolution did."""
    torch.manual_seed(0)
    images, digits = load_digits(return_X_y=True)
    pixels = torch.tensor(images / 16, dtype=torch.float32)
    labels = torch.tensor(digits)
    first = tts.TrulySparseLinear(64, 200, density=0.1)
    model = nn.Sequential(
        first,
        nn.ReLU(),
        tts.TrulySparseLinear(200, 200, density=0.05),
        nn.ReLU(),
        tts.TrulySparseLinear(200, 10, density=0.3),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.002)
    steps = len(pixels) // BATCH
    evolution = tts.SET(model, optimizer, every=steps, fraction=0.3)
    recording = plots.Recording(evolution)
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(pixels))[: steps * BATCH].reshape(steps, BATCH):
            loss = nn.functional.cross_entropy(model(pixels[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / steps)
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), layout="constrained")
    plots.input_image(first, (8, 8), axes[0, 0])
    plots.degrees_over_time(recording, "0", "inputs", axes[0, 1])
    ends = [steps * (epoch + 1) for epoch in range(EPOCHS)]
    plots.loss_and_turnover(recording, losses, ends, axes[0, 2])
    plots.degrees(first, axes[1, 0])
    plots.densities(model, axes[1, 1])
    names = [f"row {place // 8}, column {place % 8}" for place in range(64)]
    plots.ranking(first, names, 12, axes[1, 2])
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main(*sys.argv[1:])
