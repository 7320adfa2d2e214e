"""What is compared, and the settings that both forms share."""

from __future__ import annotations

from dataclasses import dataclass

FORMS = {"dense": "dense", "sparse": "truly sparse"}


@dataclass(frozen=True)
class Settings:
    """A small transformer, its training, and how sparse its projections are."""

    width: int = 128  # d_model
    feed_forward: int = 512
    heads: int = 4
    blocks: int = 2
    context: int = 128  # characters that a prediction sees at most
    batch_size: int = 8  # sequences a step
    steps: int = 150
    dense_lr: float = 4e-3  # peak learning rate of the dense form
    sparse_lr: float = 16e-3  # larger, for units of a tenth of the inputs: docs/drop_in.md
    warmup: int = 50  # steps over which the learning rate rises; it then falls to a tenth
    beta2: float = 0.95  # AdamW's memory of squared gradients: some 20 steps
    weight_decay: float = 0.01
    feed_forward_density: float = 0.1
    attention_density: float = 0.2
    distribution: str = "uniform"
    evolve_every: int = 0  # steps between evolutions of the sparse form; 0: its topology stays
    evaluate_every: int = 25
    held_out: int = 64  # sequences of held-out text in every evaluation
    text: int = 1_000_000  # characters to train on
    seed: int = 0
    threads: int = 1


PRESETS = {
    "small": Settings(),
    "wide": Settings(
        width=640,
        feed_forward=2560,
        heads=10,
        steps=1000,
        warmup=100,
        evaluate_every=100,
        dense_lr=5e-4,
        sparse_lr=2e-3,
        held_out=256,
        text=8_000_000,
    ),
}
