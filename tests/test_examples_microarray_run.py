"""examples/microarray.py from end to end, with networks small enough for a test."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import microarray
import numpy as np
import pytest
import torch
from microarray_study import networks, training
from microarray_study.command_line import parse, settings_of
from microarray_study.data_set import DataSet, make_data_set
from microarray_study.results import Results, load_results
from microarray_study.settings import METHODS, NETWORKS, Settings
from microarray_study.splits import standardise, stratified_split
from processes import run_python, started_python, wait_for_end

import torch_truly_sparse as tts

SCRIPT = Path(__file__).parents[1] / "examples" / "microarray.py"
SMALL = ["--hidden", "60,40", "--epsilon", "3", "--epochs", "3", "--lr", "0.01"]
SMALL_SETTINGS = Settings(hidden=(60, 40), epsilon=3, epochs=3, lr=0.01)


def data_set(samples: int = 24, features: int = 50) -> DataSet:
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % 3
    values = rng.normal(size=(samples, features))
    values[:, :10] += 2 * np.eye(3)[labels][:, np.arange(10) % 3]
    return make_data_set("tissue", "tissue", values, labels)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run on one file."""
    folder = tmp_path_factory.mktemp("microarray")
    data = data_set()
    np.savez(folder / "tissue.npz", X=data.features, Y=data.labels)
    assert microarray.main(command(folder, "--splits", "1")) == 0
    return folder


def command(folder: Path, *more: str) -> list[str]:
    start = [str(folder / "tissue.npz"), "--output", str(folder / "out")]
    return [*start, "--methods", ",".join(METHODS), *SMALL, *more]


def results_of(folder: Path) -> Results:
    return load_results(folder / "out" / "tissue.json")


# A whole run.


def test_every_method_ran(finished):
    results = results_of(finished)
    assert [(run.split, run.method) for run in results.runs] == [(1, m) for m in METHODS]
    assert results.settings["hidden"] == [60, 40]
    assert results.environment["torch"].startswith(torch.__version__.split("+")[0])
    for name in ("tissue.png", "tissue_networks.png"):
        assert (finished / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_the_classifier_says_whom_it_took_for_whom_and_by_which_features(finished):
    (run,) = results_of(finished).by_method()["classifier"]
    right = [a == b for a, b in zip(run.truth, run.predicted, strict=True)]
    assert run.accuracy == sum(right) / len(right) > 0.7
    names = [name for name, _, _ in run.top_features[:5]]
    assert len({int(name.removeprefix("feature ")) for name in names} & set(range(1, 11))) >= 4


def test_the_figures_of_a_run_are_whole(finished):
    for run in results_of(finished).runs:
        assert 0 <= run.accuracy <= 1
        assert run.seed == run.split
        assert run.test_samples == 9  # a third of each class of 8, rounded
        assert run.seconds > 0
        if run.method in NETWORKS:
            assert len(run.train_loss) == len(run.test_accuracy) == len(run.epoch_seconds) == 3
            assert run.accuracy == run.test_accuracy[-1]  # the last epoch's, not the best
            assert run.seconds_per_epoch in run.epoch_seconds
        if sys.platform == "linux":
            assert run.peak_bytes is not None


def test_the_twins_take_the_same_way(finished):
    by_method = results_of(finished).by_method()
    for sparse, masked in zip(by_method["sparse"], by_method["masked"], strict=True):
        np.testing.assert_allclose(sparse.train_loss, masked.train_loss, rtol=1e-3)
        assert sparse.weights == masked.weights < masked.stored_weights
        assert sparse.stored_weights == sparse.weights
        assert sparse.evolution == masked.evolution
        assert sparse.evolution["evolutions"] == 2  # between epochs, never after the last
        assert sparse.evolution["replaced"] > 0
    for dense in by_method["dense"]:
        assert dense.evolution is None
        assert dense.stored_weights == dense.weights == 50 * 60 + 60 * 40 + 40 * 3


def test_a_second_call_does_nothing_again(finished, capsys):
    before = (finished / "out" / "tissue.json").read_bytes()
    assert microarray.main(command(finished, "--splits", "1")) == 0
    assert "Done already: 6 of 6 runs" in capsys.readouterr().out
    assert (finished / "out" / "tissue.json").read_bytes() == before


def test_a_split_may_be_added(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    assert microarray.main(command(tmp_path, "--splits", "2", "--methods", "svm")) == 0
    assert [run.split for run in results_of(tmp_path).by_method()["svm"]] == [1, 2]
    assert results_of(tmp_path).runs[:6] == results_of(finished).runs


def test_another_setting_is_refused(finished, capsys):
    assert microarray.main([*command(finished), "--epochs", "4"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "epochs: 3 there, 4 now" in error
    assert "--restart" in error


def test_the_markdown_comes_from_the_files(finished, capsys):
    assert microarray.main(["--markdown", str(finished / "out" / "tissue.json")]) == 0
    by_path = capsys.readouterr().out
    assert microarray.main(["--markdown", "--output", str(finished / "out")]) == 0
    assert capsys.readouterr().out == by_path
    assert "| tissue | 24 x 50 | 3 |" in by_path


def test_several_data_sets_get_an_overview(tmp_path):
    data = data_set()
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", X=data.features, Y=data.labels)
    files = [str(tmp_path / "one.npz"), str(tmp_path / "two.npz")]
    out = tmp_path / "out"
    assert microarray.main([*files, "--output", str(out), "--methods", "svm", "--quick"]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "one.json",
        "one.png",
        "overview.png",
        "two.json",
        "two.png",
    ]


# What can go wrong.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mat"], "error: none.mat: there is no such file"),
        (["--markdown", "none.json"], "error: none.json: there is no such file"),
        (["--markdown", "--output", "none"], "error: --markdown needs results"),
        (["--hidden", "8,8"], "so none would be sparse; lower --epsilon or widen --hidden"),
    ],
)
def test_a_wrong_input_is_one_line_and_status_2(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert microarray.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs: must be a whole number of at least 1, got '0'"),
        (["--splits", "two"], "--splits: must be a whole number of at least 1, got 'two'"),
        (["--lr", "nan"], "--lr: must be above 0, got 'nan'"),
        (["--epsilon", "-1"], "--epsilon: must be above 0, got '-1'"),
        (["--fraction", "1.5"], "--fraction: must be above 0 and at most 1, got '1.5'"),
        (["--hidden", "100,,100"], "--hidden: must be a whole number of at least 1, got ''"),
        (["--methods", "sparse,forest"], "--methods: must be among classifier, .* got 'forest'"),
    ],
)
def test_a_wrong_option_says_what_is_expected(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        microarray.main(arguments)
    assert end.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_options_become_settings():
    options = parse("", ["--quick", "--hidden", "30,20", "--methods", "dense,sparse"])
    assert options.methods == ["sparse", "dense"]
    assert options.splits == 1
    assert settings_of(options) == Settings(hidden=(30, 20), epochs=3, classifier_epochs=3)
    assert settings_of(parse("", ["--quick", "--epochs", "7"])).epochs == 7


def test_two_files_of_one_name_are_refused(tmp_path, capsys):
    data = data_set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.savez(tmp_path / folder / "tissue.npz", X=data.features, Y=data.labels)
    files = [str(tmp_path / folder / "tissue.npz") for folder in ("a", "b")]
    assert microarray.main([*files, *SMALL, "--output", str(tmp_path / "out")]) == 2
    assert "two files are named 'tissue'" in capsys.readouterr().err


def test_a_diverging_training_ends_with_its_reason(tmp_path, capsys):
    data = data_set()
    np.savez(tmp_path / "tissue.npz", X=data.features, Y=data.labels)
    assert microarray.main([*command(tmp_path), "--lr", "1e30", "--methods", "sparse"]) == 1
    error = capsys.readouterr().err
    assert "error: tissue, split 1, MLP trained by SET: diverged in epoch" in error
    assert "lower --lr" in error


# Runs the example; says when a run has its process, and when an epoch is over.
TELLING = """
import signal, subprocess, sys, types
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background
sys.path.insert(0, {examples!r})
import microarray
from microarray_study import fresh_process

class Popen(subprocess.Popen):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        print("process", self.pid, flush=True)

def run_telling(*arguments, on_report, **options):
    def tell(figures):
        print("epoch", flush=True)
        on_report(figures)
    return run(*arguments, on_report=tell, **options)

fresh_process.subprocess = types.SimpleNamespace(Popen=Popen, PIPE=subprocess.PIPE)
run, microarray.run_in_fresh_process = microarray.run_in_fresh_process, run_telling
sys.exit(microarray.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
@pytest.mark.parametrize("moment", ["process", "epoch"])
def test_ctrl_c_keeps_what_is_done(moment, tmp_path):
    data = data_set()
    np.savez(tmp_path / "tissue.npz", X=data.features, Y=data.labels)
    # The first run is short; the second would take hours.
    arguments = [*command(tmp_path), "--splits", "1", "--epochs", "1000000"]
    assert microarray.main([*arguments, "--methods", "svm"]) == 0
    out = tmp_path / "out" / "tissue.json"
    before = out.read_bytes()
    program = TELLING.format(examples=str(SCRIPT.parent))
    command_line = ["-c", program, *arguments, "--methods", "sparse,svm"]
    with started_python(*command_line, cwd=tmp_path) as process:
        said = [process.stdout.readline()]
        while not said[-1].startswith(moment):
            assert said[-1], process.stderr.read()
            said.append(process.stdout.readline())
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        stdout, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "Done already: 1 of 2 runs (--restart does them again).\n" in said
    if hasattr(os, "pidfd_open"):  # Linux
        (worker,) = [int(line.split()[1]) for line in said if line.startswith("process")]
        wait_for_end(worker)
    assert "Traceback" not in stderr
    assert "The same command goes on from here" in stderr
    assert "linear SVM, all features" in stdout  # the table of what is done
    assert out.read_bytes() == before
    assert json.loads(before)["runs"]
    assert [path.name for path in out.parent.glob(".*")] == []


def test_the_script_runs_from_any_folder(tmp_path):
    done = run_python(str(SCRIPT), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--epsilon" in done.stdout


# The networks and the loop.


def build(method: str, seed: int = 0, **change: object) -> torch.nn.Sequential:
    settings = Settings(**{"hidden": (60, 40), "epsilon": 3.0} | change)
    generator = torch.Generator().manual_seed(seed)
    return networks.build_network(method, 50, 3, settings, generator)


def test_twins_start_equal_and_end_in_a_dense_layer():
    sparse, masked = build("sparse"), build("masked")
    for one, other in zip(sparse, masked, strict=True):
        if isinstance(one, tts.TrulySparseLinear):
            torch.testing.assert_close(one.to_dense().weight, other.weight, rtol=0, atol=0)
            assert one.nnz == other.nnz < 0.5 * other.weight.numel()
    assert type(sparse[-1]) is type(masked[-1]) is torch.nn.Linear
    torch.testing.assert_close(sparse[-1].weight, masked[-1].weight, rtol=0, atol=0)
    assert not any(isinstance(m, tts.nn.SparseLayer) for m in build("dense"))


def test_weights_start_as_those_of_nn_linear_with_the_fan_in_that_a_unit_has():
    layer = build("sparse")[0]
    fan_in = torch.bincount(layer.indices[0], minlength=60)
    scaled = layer.values.detach() * fan_in[layer.indices[0]].sqrt()
    assert scaled.abs().max() <= 1
    assert scaled.std().item() == pytest.approx(3**-0.5, rel=0.1)  # of 330 draws: 4 deviations
    dense = build("dense")[0]
    assert dense.weight.abs().max() <= 50**-0.5
    assert dense.weight.detach().std().item() == pytest.approx((3 * 50) ** -0.5, rel=0.05)


def test_an_output_layer_of_many_classes_is_sparse_too():
    generator = torch.Generator().manual_seed(0)
    network = networks.build_network("sparse", 50, 400, SMALL_SETTINGS, generator)
    assert isinstance(network[-1], tts.TrulySparseLinear)


def test_training_learns_and_never_evolves_after_the_last_epoch():
    data = data_set(samples=60)
    parts = standardise(data, stratified_split(data.labels, 1 / 3, seed=0))
    settings = Settings(hidden=(60, 40), epsilon=3, epochs=15, lr=0.01)
    curves, evolution = training.train(build("sparse"), parts, settings, 0, lambda _: None)
    assert curves.train_loss[-1] < 0.1 * curves.train_loss[0]
    assert curves.test_accuracy[-1] > 0.6  # a third by chance
    assert evolution is not None
    assert len(evolution.history) == 14
    assert evolution.history[-1].step == 14 * 20 + 1  # after the first step of the last epoch
