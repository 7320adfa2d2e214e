"""examples/million_neurons.py, with networks small enough for a test."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import million_neurons
import numpy as np
import pytest
import torch
from million_neurons_study import data, memory, training
from million_neurons_study.command_line import parse, settings_of
from million_neurons_study.settings import SIZES, Settings

import torch_truly_sparse as tts

SMALL = ["--hidden", "300", "--inputs", "400", "--epochs", "3"]
SMALL_SETTINGS = Settings(hidden=300, inputs=400, epochs=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("million") / "deep" / "small.json"
    assert million_neurons.main([*SMALL, "--json", str(path)]) == 0
    return path


def test_a_run_says_all_that_it_measured(finished: Path) -> None:
    result = json.loads(finished.read_text())
    outcome, epochs = result["outcome"], result["outcome"]["epochs"]
    assert outcome["neurons"] == 400 + 3 * 300 + 5
    assert outcome["weights"] == 20 * (400 + 300) + 2 * 20 * 600 + 5 * 300
    assert outcome["steps"] == 67  # of 135 samples, as in the reference
    assert len(epochs) == 3
    assert epochs[-1]["loss"] < epochs[0]["loss"]
    assert outcome["accuracy"] > 0.5  # of 5 classes
    for epoch in epochs[:-1]:
        assert epoch["evolution_seconds"] > 0
        assert epoch["replaced"] == pytest.approx(0.3 * (outcome["weights"] - 5 * 300), rel=1e-3)
    assert epochs[-1]["evolution_seconds"] is None  # nothing evolves after the last epoch
    assert epochs[-1]["replaced"] == 0
    assert result["settings"]["learning_rate"] == 0.01
    assert result["environment"]["torch"].startswith(torch.__version__.split("+")[0])
    if sys.platform == "linux":
        assert outcome["peak_bytes"] is not None


def test_the_same_seed_gives_the_same_losses(finished: Path, tmp_path: Path) -> None:
    assert million_neurons.main([*SMALL, "--json", str(tmp_path / "again.json")]) == 0
    first, again = (
        json.loads(path.read_text())["outcome"] for path in (finished, tmp_path / "again.json")
    )
    assert [e["loss"] for e in first["epochs"]] == [e["loss"] for e in again["epochs"]]
    assert first["accuracy"] == again["accuracy"]


def test_who_updates_the_weights_makes_no_difference(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "torch.json"
    assert million_neurons.main([*SMALL, "--optimizer", "torch", "--json", str(path)]) == 0
    first, other = (json.loads(each.read_text()) for each in (finished, path))
    assert (first["settings"]["optimizer"], other["settings"]["optimizer"]) == ("tts", "torch")
    losses = [[epoch["loss"] for epoch in each["outcome"]["epochs"]] for each in (first, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


def test_the_markdown_comes_from_the_files(finished: Path, capsys) -> None:
    assert million_neurons.main(["--markdown", str(finished), str(finished)]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| neurons | weights |")
    assert len(rows) == 2
    assert all(line.count("|") == rule.count("|") for line in (head, *rows))
    assert rows[0].startswith("| 1,305 | 39,500 |")


def test_a_file_brings_its_own_shape(tmp_path: Path, capsys) -> None:
    labels = np.arange(30) % 2
    features = np.random.default_rng(0).normal(size=(30, 40)) + 3 * labels[:, None]
    np.savez(tmp_path / "tissue.npz", X=features, Y=labels)
    assert (
        million_neurons.main([str(tmp_path / "tissue.npz"), "--hidden", "50", "--epsilon", "2"])
        == 0
    )
    out = capsys.readouterr().out
    assert "40-50-50-50-2: 192 neurons" in out
    assert "data: tissue.npz" in out


# Sizes


@pytest.mark.parametrize(
    ("size", "neurons", "weights"),
    [
        ("3000", 12_317, 381_240),
        ("30000", 93_317, 3_216_240),
        ("300000", 903_317, 31_566_240),
        ("600000", 1_803_317, 63_066_240),
        ("fifty", 50_065_542, 250_163_858),
    ],
)
def test_named_sizes_are_those_of_the_page(size: str, neurons: int, weights: int) -> None:
    settings = settings_of(parse(None, ["--size", size]))
    assert settings.neurons == neurons
    assert sum(layer.weights for layer in settings.layers()) == weights
    page = (Path(__file__).parents[1] / "docs" / "million_neurons.md").read_text()
    assert f"{neurons:,}" in page
    assert f"{weights:,}" in page


def test_what_is_given_besides_a_named_size_changes_it() -> None:
    settings = settings_of(parse(None, ["--size", "fifty", "--epsilon", "1", "--lr", "0.5"]))
    assert settings == Settings(**(SIZES["fifty"] | {"epsilon": 1.0, "learning_rate": 0.5}))
    assert settings.rate == 0.5


def test_the_rate_falls_with_the_width_beyond_that_of_the_reference() -> None:
    assert [replace(Settings(), hidden=h).rate for h in (100, 3_000, 30_000)] == [0.01, 0.01, 0.001]


def test_nearly_full_layers_are_dense_and_the_others_hold_what_was_counted() -> None:
    network = training.build_network(SMALL_SETTINGS)
    *hidden, last = (layer for layer in network if not isinstance(layer, torch.nn.ReLU))
    assert all(isinstance(layer, tts.TrulySparseLinear) for layer in hidden)
    assert isinstance(last, torch.nn.Linear)
    held = [sum(p.numel() for n, p in m.named_parameters() if n != "bias") for m in (*hidden, last)]
    assert held == [layer.weights for layer in SMALL_SETTINGS.layers()]


def test_generated_samples_are_of_every_class_and_apart() -> None:
    parts = data.generate(Settings())
    assert parts.train_features.shape == (135, 3_312)
    assert parts.test_features.shape == (68, 3_312)
    assert parts.train_features.dtype == np.float32
    assert set(parts.train_labels) == set(parts.test_labels) == set(range(5))
    centres = np.stack([parts.train_features[parts.train_labels == c].mean(0) for c in range(5)])
    distances = ((parts.test_features[:, None] - centres) ** 2).sum(2)
    assert (distances.argmin(1) == parts.test_labels).mean() > 0.9


# Memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_what_would_not_fit_is_refused_before_it_is_built(capsys) -> None:
    assert million_neurons.main(["--hidden", str(10**11)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 300,000,003,317 neurons and ")
    assert f"need about {memory.bytes_needed(Settings(hidden=10**11)):,} bytes" in error
    assert "are available; lower --hidden" in error


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_a_billion_weights_fit_22_gibibytes_and_are_refused_in_less(monkeypatch, capsys) -> None:
    billion = settings_of(parse("", ["--size", "billion", "--epochs", "2"]))
    assert sum(layer.weights for layer in billion.layers() if not layer.is_dense) >= 10**9
    needed = memory.bytes_needed(billion)
    assert needed <= 22 * 2**30
    assert memory.bytes_needed(replace(billion, optimizer="torch")) >= needed + 4 * 10**9
    monkeypatch.setattr(memory, "bytes_available", lambda: needed - 1)
    assert million_neurons.main(["--size", "billion", "--epochs", "2"]) == 2
    assert f"need about {needed:,} bytes" in capsys.readouterr().err


def test_the_billion_in_small_learns() -> None:
    settings = replace(
        settings_of(parse("", ["--size", "billion"])), hidden=500, inputs=400, epochs=4
    )
    outcome = training.run(settings, data.generate(settings), lambda _: None)
    # .32 to .34 of the first epoch's: torch draws other numbers on other processors
    assert outcome.epochs[-1].loss < 0.5 * outcome.epochs[0].loss


def test_memory_is_that_of_the_narrower_of_machine_and_container(tmp_path, monkeypatch) -> None:
    info, limit, used = (tmp_path / name for name in ("meminfo", "max", "current"))
    info.write_text("MemTotal: 9 kB\nMemAvailable:    5000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", info)
    monkeypatch.setattr(memory, "GROUPS", ((limit, used),))
    assert memory.bytes_available() == 5_120_000
    limit.write_text("max\n")
    used.write_text("1000\n")
    assert memory.bytes_available() == 5_120_000
    limit.write_text("4001000\n")
    assert memory.bytes_available() == 4_000_000
    info.unlink()
    limit.unlink()
    assert memory.bytes_available() is None
    memory.check_memory(Settings(hidden=10**11))  # nothing known, nothing refused


def test_evolution_is_counted_where_there_is_one() -> None:
    assert memory.bytes_needed(Settings(epochs=2)) > memory.bytes_needed(Settings(epochs=1))


# What can go wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mat"], "error: none.mat: there is no such file"),
        (["--markdown", "none.json"], "error: none.json: cannot be read as JSON"),
        ([*SMALL, "--lr", "1e9"], "error: diverged in epoch 1: the loss is"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys) -> None:
    assert million_neurons.main(arguments) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_other_json_is_no_result(tmp_path: Path, capsys) -> None:
    (tmp_path / "other.json").write_text("[1]")
    assert million_neurons.main(["--markdown", str(tmp_path / "other.json")]) == 2
    assert "is no result of million_neurons.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hidden", "0"], "argument --hidden: must be a whole number of at least 1, got '0'"),
        (["--size", "huge"], "argument --size: invalid choice"),
        (["data.csv", "--inputs", "5"], "argument --inputs: a FILE brings its own"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        million_neurons.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
