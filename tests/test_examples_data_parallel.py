"""examples/data_parallel.py: on ranks of its own, under torchrun, and after a rank was killed."""

from __future__ import annotations

import re
from pathlib import Path

import data_parallel
import pytest
import torch
from data_parallel_study.data import generate
from data_parallel_study.settings import Settings
from data_parallel_study.training import batches
from processes import run_python
from several_ranks import needs_gloo

import torch_truly_sparse as tts

SCRIPT = str(Path(data_parallel.__file__))
SHORT = ["--epochs", "5", "--seed", "2"]  # 4 together (3.5), 1 apart


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("torchrun")
    done = run_python(
        *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
        *[SCRIPT, *SHORT, "--save", "merged.pt"],
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "merged.pt"


@needs_gloo
def test_it_says_time_and_accuracy_of_each_phase(uninterrupted: tuple[str, Path]) -> None:
    said, _ = uninterrupted
    assert "phase 1: 2 ranks train one network" in said
    assert re.search(r"phase 1: \d+\.\d s, accuracy 0\.\d+", said)
    assert re.search(r"phase 2: \d+\.\d s, accuracy of each copy 0\.\d+, 0\.\d+", said)
    assert re.search(r"merged: \d+\.\d+ s, accuracy 0\.\d+", said)
    assert re.findall(r"epoch (\d)", said) == ["1", "2", "3", "4", "5"]


@needs_gloo
def test_after_a_rank_was_killed_the_others_end_up_with_the_same_network(
    uninterrupted: tuple[str, Path], tmp_path: Path
) -> None:
    done = run_python(
        *[SCRIPT, *SHORT, "--threads", "1", "--kill-after", "2", "--save", "merged.pt"],
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "a rank is gone" in done.stdout
    assert "going on from epoch_2.pt" in done.stdout
    assert re.findall(r" epoch (\d)", done.stdout) == ["1", "2", "3", "4", "5"]
    expected = tts.checkpoint.load(uninterrupted[1])["model"]
    found = tts.checkpoint.load(tmp_path / "merged.pt")["model"]
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_ranks_share_each_batch() -> None:
    settings = Settings(samples=60, batch_size=12, features=5)
    train, test = generate(settings)
    assert (len(train), len(test)) == (60, 15)
    whole = [batch.features for batch in batches(train, settings, 1, 0, 1)]
    parts = [[b.features for b in batches(train, settings, 1, rank, 3)] for rank in range(3)]
    assert len(whole) == 5
    for number, batch in enumerate(whole):
        shares = torch.stack([part[number] for part in parts], dim=1)
        assert torch.equal(shares.reshape(12, 5), batch)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--ranks", "0"], "must be at least 1, got 0"),
        (["--ranks", "121"], "--ranks must be at most 120"),
    ],
)
def test_the_command_line_is_checked(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        data_parallel.main(arguments)
    assert text in capsys.readouterr().err


def test_torchrun_needs_a_place_for_checkpoints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    with pytest.raises(SystemExit):
        data_parallel.main(["--kill-after", "1"])
    assert "needs --checkpoints" in capsys.readouterr().err
