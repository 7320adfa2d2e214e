"""One run, from the text to its figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from microarray_study.measuring import PeakMemory
from torch import nn

import torch_truly_sparse as tts
from drop_in_study import training, transformer
from drop_in_study.results import Run
from drop_in_study.settings import Settings
from drop_in_study.text import Text

REPEATS = 10  # of the feed-forward parts, timed alone; the median counts


def run(form: str, text: Text, settings: Settings, report: Callable[[str], None]) -> Run:
    """Build, train and measure one form in this process."""
    torch.set_num_threads(settings.threads)
    _warm_up(form, text, settings)
    with PeakMemory() as memory:
        model = transformer.build(form, settings)
        curves = training.train(model, form, text, settings, report)
    table = tts.summary(model)
    return Run(
        form=form,
        held_out_loss=curves.held_out_loss[-1],
        weights=table.nnz,
        model_bytes=table.bytes,
        peak_bytes=memory.added_bytes,
        step_seconds=statistics.median(curves.seconds),
        feed_forward_seconds=feed_forward_seconds(model, settings),
        evaluated_at=curves.evaluated_at,
        held_out_losses=curves.held_out_loss,
        train_losses=curves.train_loss,
    )


def feed_forward_seconds(model: nn.Module, settings: Settings) -> float:
    """Return the median seconds that a step spends in all feed-forward parts, timed alone."""
    parts = transformer.feed_forward_parts(model)
    size = (settings.batch_size, settings.context, settings.width)
    generator = torch.Generator().manual_seed(settings.seed)
    input = torch.randn(size, generator=generator).requires_grad_()
    gradient = torch.randn(size, generator=generator)
    times = []
    for _ in range(2 + REPEATS):
        started = time.perf_counter()
        for part in parts:
            torch.autograd.grad(part(input), [input, *part.parameters()], gradient)
        times.append(time.perf_counter() - started)
    return statistics.median(times[2:])


def _warm_up(form: str, text: Text, settings: Settings) -> None:
    """Train a tiny model of the same kind, so that torch loads what it loads on first use."""
    tiny = replace(
        settings, width=32, feed_forward=64, heads=2, blocks=1, context=16, steps=2, held_out=8
    )
    training.train(transformer.build(form, tiny), form, text, tiny, lambda _: None)
