"""examples/microarray.py: results are kept whole, continued honestly and shown as they are."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from microarray_study.data_set import DataSet, make_data_set
from microarray_study.errors import InputError, RunError
from microarray_study.picture import draw_data_set, draw_networks, draw_overview
from microarray_study.results import Results, Run, load_results, open_results
from microarray_study.settings import CLASSIC, METHODS, NETWORKS, Settings
from microarray_study.table import markdown_tables, text_table
from processes import run_python

WHERE = {"processor": "abacus", "torch": "2.0"}
SETTINGS = Settings(epochs=2)


def data_set(name: str = "colon", shift: float = 0.0) -> DataSet:
    return make_data_set(name, name, np.arange(24.0).reshape(6, 4) + shift, [0, 1, 1] * 2)


def run(split: int, method: str, accuracy: float = 0.75) -> Run:
    network = method in NETWORKS
    return Run(
        split=split,
        method=method,
        seed=split,
        accuracy=accuracy,
        test_samples=4,
        weights=1000,
        stored_weights=1000 if method == "sparse" else 40_000,
        seconds=3.0,
        seconds_per_epoch=0.5 if network else None,
        peak_bytes=7_000_000 if method != "svm" else None,
        train_loss=[0.9, 0.123456789] if network else [],
        test_accuracy=[0.5, accuracy] if network else [],
        epoch_seconds=[0.5, 0.5] if network else [],
        evolution={"evolutions": 1, "replaced": 300} if method in ("sparse", "masked") else None,
        chosen={"C": 0.1} if method in CLASSIC else None,
        truth=[0, 1, 1, 1] if method == "classifier" else [],
        predicted=[0, 0, 1, 1] if method == "classifier" else [],
        top_features=[["BRCA1", 0.4, 1.0], ["TP53", 0.1, 0.5]] if method == "classifier" else [],
    )


def results_in(folder: Path, name: str = "colon", splits: int = 2) -> Results:
    results = open_results(folder, data_set(name), SETTINGS, WHERE, restart=False)
    for split in range(1, splits + 1):
        for method in METHODS:
            results.add(run(split, method, accuracy=0.5 + split / 8))
    return results


def test_what_is_written_is_read_back(tmp_path):
    results = results_in(tmp_path)
    again = load_results(tmp_path / "colon.json")
    assert [(r.split, r.method) for r in again.runs] == [(r.split, r.method) for r in results.runs]
    network = again.by_method()["sparse"][0]
    assert network.train_loss == [0.9, 0.123457]
    assert again.by_method()["classifier"][0].top_features[0] == ["BRCA1", 0.4, 1.0]
    written = results.by_method()["sparse"][0]
    assert replace(network, train_loss=[]) == replace(written, train_loss=[])
    content = json.loads((tmp_path / "colon.json").read_text())
    assert content["schema"] == 1
    assert content["settings"]["epsilon"] == 20
    assert content["environment"] == WHERE
    assert content["data_set"]["classes"] == {"0": 2, "1": 4}


def test_no_run_is_lost_or_half_written_when_writing_fails(tmp_path, monkeypatch):
    results = results_in(tmp_path, splits=1)
    before = (tmp_path / "colon.json").read_bytes()

    def interrupted(self: Path, *args: object, **kwargs: object) -> None:
        self.write_bytes(b'{"half')
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results.add(run(2, "sparse"))
    assert (tmp_path / "colon.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["colon.json"]
    assert not results.has(2, "sparse")


def test_the_same_setting_is_continued(tmp_path):
    results_in(tmp_path, splits=1)
    again = open_results(tmp_path, data_set(), SETTINGS, WHERE, restart=False)
    assert again.has(1, "sparse")
    assert not again.has(2, "sparse")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": replace(SETTINGS, epochs=3)}, "epochs: 2 there, 3 now"),
        ({"settings": replace(SETTINGS, hidden=(5,))}, r"hidden: \[1000, .* there, \[5\] now"),
        ({"data": data_set(shift=1.0)}, "data fingerprint"),
        ({"environment": {**WHERE, "torch": "2.1"}}, "torch: 2.0 there, 2.1 now"),
    ],
)
def test_another_setting_is_refused_unless_restarted(tmp_path, change, message):
    results_in(tmp_path, splits=1)
    new = {"data": data_set(), "settings": SETTINGS, "environment": WHERE} | change
    with pytest.raises(InputError, match=f"{message}.*--restart"):
        open_results(tmp_path, **new, restart=False)
    assert open_results(tmp_path, **new, restart=True).runs == []


def test_an_output_that_cannot_be_written_is_reported(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match=r"--output .*taken: cannot be made a folder"):
        open_results(tmp_path / "taken", data_set(), SETTINGS, WHERE, restart=False)
    results = open_results(tmp_path / "out", data_set(), SETTINGS, WHERE, restart=False)
    (tmp_path / "out").rmdir()
    with pytest.raises(RunError, match=r"colon\.json: cannot be written"):
        results.add(run(1, "svm"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no readable results file"),
        ("[]", "expected results of schema 1, got None"),
        ('{"schema": 99}', "expected results of schema 1, got 99"),
        ('{"schema": 1}', "no complete results file"),
        ('{"schema": 1, "runs": [{"split": 1}]}', "no complete results file"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, message):
    (tmp_path / "colon.json").write_text(content)
    with pytest.raises(InputError, match=message):
        load_results(tmp_path / "colon.json")
    with pytest.raises(InputError, match="there is no such file"):
        load_results(tmp_path / "none.json")


def test_the_table_has_a_line_for_each_method_with_mean_and_deviation(tmp_path):
    head, _, *lines = text_table(results_in(tmp_path)).splitlines()
    assert len(lines) == len(METHODS)
    assert len({len(line) for line in [head, *lines]}) == 1
    # Accuracies 0.625 and 0.75: mean 0.6875, deviation 0.125 / sqrt(2).
    assert "0.688 ± 0.088" in lines[0]
    assert "7.0" in lines[0]
    assert lines[-1].rstrip().endswith("-")  # the SVM has neither epochs nor, here, a peak


def test_one_split_has_no_deviation(tmp_path):
    assert "±" not in text_table(results_in(tmp_path, splits=1))


def test_the_markdown_has_a_line_for_each_data_set_and_each_network(tmp_path):
    every = [results_in(tmp_path, name) for name in ("colon", "nci9")]
    accuracies, costs = markdown_tables(every).split("\n\n")
    assert len(accuracies.splitlines()) == 2 + len(every)
    assert len(costs.splitlines()) == 2 + len(every) * (len(METHODS) - len(CLASSIC))
    assert "| nci9 | 6 x 4 | 2 | 0.688 ± 0.088 |" in accuracies
    assert "| colon | MLP trained by SET | 1,000 | 1,000 | 0.500 | 7.0 |" in costs
    for table in (accuracies, costs):
        assert len({line.count("|") for line in table.splitlines()}) == 1


@pytest.mark.parametrize("methods", [list(METHODS), ["sparse"], ["svm"]])
@pytest.mark.parametrize("splits", [1, 3])
def test_a_picture_is_drawn_of_whatever_there_is(tmp_path, methods, splits):
    every = []
    for name in ("colon", "nci9"):
        results = open_results(tmp_path, data_set(name), SETTINGS, WHERE, restart=False)
        for split in range(1, splits + 1):
            for method in methods:
                results.add(run(split, method))
        every.append(results)
    for path in (
        draw_data_set(every[0], tmp_path / "one.png"),
        *([draw_networks(every[0], tmp_path / "two.png")] if "sparse" in methods else []),
        draw_overview(every, tmp_path / "all.png"),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot set their peak back")
def test_the_peak_is_that_of_the_block_alone():
    program = """
import numpy as np
from microarray_study.measuring import PeakMemory
before = np.ones(200_000_000 // 8); del before   # a larger peak, earlier
with PeakMemory() as memory:
    block = np.ones(50_000_000 // 8); del block
print(memory.added_bytes)
with PeakMemory() as memory:
    pass
print(memory.added_bytes)
"""
    done = run_python("-c", program, cwd=Path(__file__).parents[1] / "examples")
    assert done.returncode == 0, done.stderr
    block, nothing = map(int, done.stdout.split())
    assert 49_000_000 < block < 60_000_000
    assert nothing < 1_000_000
