"""One training loop for both forms: the same batches in the same order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from microarray_study.errors import RunError
from torch import nn
from torch.nn import functional as F

import torch_truly_sparse as tts
from drop_in_study.settings import Settings
from drop_in_study.text import Sequences, Text


@dataclass
class Curves:
    """Losses in nats a character, and the seconds of each step."""

    evaluated_at: list[int] = field(default_factory=list)  # steps done
    held_out_loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)  # of each step's batch
    seconds: list[float] = field(default_factory=list)


def train(
    model: nn.Module,
    form: str,
    text: Text,
    settings: Settings,
    on_evaluation: Callable[[str], None],
) -> Curves:
    """Train with AdamW; every `evaluate_every` steps, and at the end, evaluate on held-out text."""
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.sparse_lr if form == "sparse" else settings.dense_lr,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, settings))
    if form == "sparse" and settings.evolve_every:
        tts.SparseEvolution(
            model,
            optimizer,
            regrow=tts.rules.RandomRegrow("zeros"),
            every=settings.evolve_every,
            stop=3 * settings.steps // 4,
            generator=torch.Generator().manual_seed(settings.seed),
        )
    batches = Sequences(text.train, settings.context, settings.batch_size, settings.seed)
    curves = Curves()
    for step in range(1, settings.steps + 1):
        characters, following = batches.draw()
        started = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(model(characters).flatten(0, 1), following.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curves.train_loss.append(loss.item())
        curves.seconds.append(time.perf_counter() - started)
        schedule.step()
        if not math.isfinite(curves.train_loss[-1]):
            raise RunError(f"diverged in step {step}; lower --{form}-lr")
        if step % settings.evaluate_every == 0 or step == settings.steps:
            curves.evaluated_at.append(step)
            curves.held_out_loss.append(evaluate(model, text, settings))
            on_evaluation(f"{form}: step {step}, held-out loss {curves.held_out_loss[-1]:.4f}")
    return curves


def rate(step: int, settings: Settings) -> float:
    """Return the learning rate over its peak: a linear rise, then a cosine down to a tenth."""
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(done, 1.0)))


@torch.no_grad()
def evaluate(model: nn.Module, text: Text, settings: Settings) -> float:
    """Return the mean loss on held-out sequences, which are the same in every evaluation."""
    model.eval()
    # A seed that no batch of the training has; it says which sequences, not which files.
    batches = Sequences(text.held_out, settings.context, settings.batch_size, settings.seed + 1)
    count = math.ceil(settings.held_out / settings.batch_size)
    total = 0.0
    for _ in range(count):
        characters, following = batches.draw()
        total += F.cross_entropy(model(characters).flatten(0, 1), following.flatten()).item()
    model.train()
    return total / count
