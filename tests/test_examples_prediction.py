"""examples/microarray.py keeps a classifier and predicts new samples with it."""

from __future__ import annotations

import joblib
import microarray
import numpy as np
import pandas as pd
import pytest

GENES = [f"g{i}" for i in range(40)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A table whose first gene decides, and a classifier that was fitted on it."""
    folder = tmp_path_factory.mktemp("model")
    labels = np.array(["tumor", "normal"] * 15)
    table = np.random.default_rng(0).normal(size=(30, 40))
    table[:, :5] += 3 * (labels == "tumor")[:, None]
    frame = pd.DataFrame(table, columns=GENES, index=[f"p{i}" for i in range(30)])
    frame.assign(tissue=labels).to_csv(folder / "train.csv")
    train = str(folder / "train.csv")
    assert microarray.main([train, "--save", str(folder / "a.model"), "--quick"]) == 0
    return folder, frame, labels


def predict(folder, path, *options):
    output = path.parent / "out"
    model = str(folder / "a.model")
    status = microarray.main([str(path), "--predict", model, "--output", str(output), *options])
    assert status == 0
    return pd.read_csv(output / f"{path.stem}_predictions.csv", index_col="sample")


def test_new_samples_get_what_the_classifier_says(saved, tmp_path):
    folder, frame, labels = saved
    shuffled = frame[GENES[::-1]].assign(batch=3.0, tissue=labels)  # more columns, in another order
    shuffled.to_csv(tmp_path / "new.csv")
    found = predict(folder, tmp_path / "new.csv")
    model = joblib.load(folder / "a.model")
    table = frame.to_numpy(np.float32)
    assert list(found.index) == list(frame.index)
    assert list(found["predicted"]) == list(model["classifier"].predict(table))
    probabilities = model["classifier"].predict_proba(table)
    np.testing.assert_allclose(found[["p(normal)", "p(tumor)"]], probabilities, atol=6e-5)
    assert (found["predicted"] == labels).mean() > 0.9


def test_missing_values_become_the_medians_of_the_training_table(saved, tmp_path, capsys):
    folder, frame, _ = saved
    holes = frame.copy()
    holes.iloc[0, 7] = np.nan
    holes.to_csv(tmp_path / "holes.csv")
    model = str(folder / "a.model")
    assert microarray.main([str(tmp_path / "holes.csv"), "--predict", model]) == 2
    assert "1 values are missing, the first in sample 1, feature 'g7'" in capsys.readouterr().err
    filled = frame.copy()
    filled.iloc[0, 7] = frame["g7"].median()
    filled.to_csv(tmp_path / "filled.csv")
    found = predict(folder, tmp_path / "holes.csv", "--missing", "median")
    expected = predict(folder, tmp_path / "filled.csv")
    pd.testing.assert_frame_equal(found, expected)


def test_a_file_that_lacks_features_is_refused(saved, tmp_path, capsys):
    folder, frame, _ = saved
    frame.drop(columns=["g3"]).to_csv(tmp_path / "less.csv")
    model = str(folder / "a.model")
    assert microarray.main([str(tmp_path / "less.csv"), "--predict", model]) == 2
    assert "1 of 40 features of the training table are lacking: 'g3'" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not a pickle", None], ids=["empty", "text", "other"])
def test_a_file_that_is_no_model_is_refused(tmp_path, capsys, content):
    path = tmp_path / "b.model"
    joblib.dump({"kind": "something"}, path) if content is None else path.write_bytes(content)
    assert microarray.main(["new.csv", "--predict", str(path)]) == 2
    assert "is no model that --save wrote" in capsys.readouterr().err
    assert microarray.main(["new.csv", "--predict", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_a_model_that_cannot_be_written_leaves_the_earlier(saved, tmp_path, capsys, monkeypatch):
    folder, _, _ = saved
    path = tmp_path / "a.model"
    path.write_bytes(b"the earlier one")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(joblib, "dump", full)
    assert microarray.main([str(folder / "train.csv"), "--save", str(path), "--quick"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert path.read_bytes() == b"the earlier one"
    assert [p.name for p in tmp_path.iterdir()] == ["a.model"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a.csv", "b.csv", "--save", "x"], "--save fits one classifier on one file"),
        (["--predict", "x"], "--predict needs files of new samples"),
        (["a.csv", "--predict", "x", "--save", "y"], "not allowed with"),
    ],
)
def test_options_that_do_not_go_together(arguments, text, capsys):
    with pytest.raises(SystemExit):
        microarray.main(arguments)
    assert text in capsys.readouterr().err
