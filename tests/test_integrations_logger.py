"""`integrations.logger.SparsityLogger`: what it writes, by itself and from each callback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd, train_step

import torch_truly_sparse as tts
from torch_truly_sparse.integrations.logger import SparsityLogger


class Writer:
    """A SummaryWriter that remembers."""

    def __init__(self) -> None:
        self.scalars: dict[tuple[str, int], float] = {}
        self.histograms: dict[tuple[str, int], Any] = {}

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def add_histogram(self, name: str, values: Any, step: int) -> None:
        self.histograms[name, step] = values


@both_twins
def test_figures_of_each_layer_are_written(layer_type: type[Any]) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SET(model, optimizer, every=2, generator=seeded())
    writer = Writer()
    handle = SparsityLogger(writer).attach(evolution)
    for seed in range(6):
        train_step(model, optimizer, seed)
    steps = {record.step for record in evolution.history}
    assert {step for _, step in writer.scalars} == steps == {3, 5}
    for name in "0", "2":
        layer = getattr(model, name)
        figures = {
            key: writer.scalars[f"sparsity/{name}/{key}", 5]
            for key in ("density", "turnover", "returned", "fan_in_max", "fan_out_max")
        }
        dense = torch.zeros(layer.out_features, layer.in_features)
        rows, columns = layer.topology.indices.long()
        dense[rows, columns] = 1
        assert figures["density"] == pytest.approx(dense.mean().item())
        assert figures["turnover"] == pytest.approx(0.3, abs=0.05)
        assert 0 <= figures["returned"] <= 1
        assert figures["fan_in_max"] == dense.sum(1).max()
        assert figures["fan_out_max"] == dense.sum(0).max()
        isolated = writer.scalars[f"sparsity/{name}/isolated_inputs", 5]
        assert isolated == (dense.sum(0) == 0).sum()
        assert writer.scalars[f"sparsity/{name}/gradient_norm", 5] > 0
        assert writer.histograms[f"sparsity/{name}/fan_in", 5].sum() == layer.nnz
        assert writer.histograms[f"sparsity/{name}/fan_out", 5].sum() == layer.nnz
    handle.remove()
    written = dict(writer.scalars)
    train_step(model, optimizer)
    evolution.step()
    assert writer.scalars == written


def test_connections_that_come_back_are_counted() -> None:
    layer = tts.TrulySparseLinear(4, 4, nnz=15, generator=seeded())
    evolution = tts.SparseEvolution(layer, sgd(layer), fraction=1.0, generator=seeded())
    lines: dict[str, float] = {}
    SparsityLogger(lambda name, value, step: lines.update({name: value})).attach(evolution)
    evolution.step()
    assert lines["sparsity/layer/turnover"] == 1
    assert lines["sparsity/layer/returned"] >= 14 / 15  # there is one other place


def test_tensorboard_gets_it(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs tensorboard")
    layer = tts.TrulySparseLinear(20, 30, density=0.1, generator=seeded())
    evolution = tts.SparseEvolution(layer, sgd(layer), generator=seeded())
    with tensorboard.SummaryWriter(str(tmp_path)) as writer:
        SparsityLogger(writer).attach(evolution)
        evolution.step()
    assert any(path.stat().st_size > 500 for path in tmp_path.iterdir())


def test_what_writes_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="`writer` must have `add_scalar`"):
        SparsityLogger("runs/1")
