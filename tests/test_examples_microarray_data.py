"""examples/microarray.py: what it reads, refuses, makes up and splits."""

import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from microarray_study.data_set import make_data_set
from microarray_study.errors import InputError
from microarray_study.generated import generate
from microarray_study.readers import Reading, read
from microarray_study.settings import Settings
from microarray_study.splits import inner_folds, standardise, stratified_split
from microarray_study.two_phase import chosen, f_statistic, fit_classic, weight_count

X = np.array([[0.5, 1.0, -2.0], [1.5, 0.0, 3.25], [2.5, -1.0, 0.0], [0.0, 4.0, 1.0]])
Y = np.array([1, 2, 1, 2])


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# Reading what is right.


@pytest.mark.parametrize("labels", [Y, Y.astype(np.uint8), Y.astype(float), Y == 2, Y.astype(str)])
def test_a_mat_file_is_read_as_it_was_written(tmp_path, labels):
    scipy.io.savemat(tmp_path / "tissue.mat", {"X": X, "Y": labels.reshape(-1, 1)})
    data = read(tmp_path / "tissue.mat")
    assert data.name == "tissue"
    assert data.features.dtype == np.float32
    np.testing.assert_array_equal(data.features, X)
    np.testing.assert_array_equal(data.labels, [0, 1, 0, 1])
    assert len(data.classes) == 2


def test_a_sparse_x_and_a_cell_array_of_labels_are_read(tmp_path):
    cells = np.array(["ALL", "AML", "ALL", "AML"], dtype=object)
    scipy.io.savemat(tmp_path / "a.mat", {"X": scipy.sparse.csc_matrix(X), "Y": cells})
    data = read(tmp_path / "a.mat")
    np.testing.assert_array_equal(data.features, X)
    assert data.classes == ("ALL", "AML")


@pytest.mark.parametrize("names", [("X", "Y"), ("x", "y")])
def test_an_npz_archive_is_read_as_it_was_written(tmp_path, names):
    np.savez(tmp_path / "a.npz", **dict(zip(names, (X, Y), strict=True)))
    data = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.features, X)
    assert data.classes == ("1", "2")


@pytest.mark.parametrize(
    ("head", "column", "label"),
    [
        ("", 3, None),
        ("g1,g2,g3,class\n", 3, None),
        ("class,g1,g2,g3\n", 0, "class"),
        ("1,2,kind,3\n", 2, "kind"),  # a header all of numbers but for the label's name
    ],
)
def test_a_csv_file_is_read_with_and_without_a_header(tmp_path, head, column, label):
    rows = [[*map(str, row)] for row in X]
    for row, kind in zip(rows, ("tumor", "normal", "tumor", " normal"), strict=True):
        row.insert(column, kind)
    text = head + "".join(",".join(row) + "\n" for row in rows) + "\n"
    data = read(write_csv(tmp_path / "a.csv", "\ufeff" + text), Reading(label=label))
    np.testing.assert_array_equal(data.features, X)
    assert data.classes == ("normal", "tumor")
    np.testing.assert_array_equal(data.labels, [1, 0, 1, 0])


def test_whole_numbers_sort_as_numbers():
    data = make_data_set("a", "a", X, np.array([10, 9, 10, 9]))
    assert data.classes == ("9", "10")
    assert data.class_sizes == {"9": 2, "10": 2}


def test_the_fingerprint_follows_the_numbers():
    one = make_data_set("a", "a", X, Y).fingerprint
    assert one == make_data_set("b", "b", X, Y).fingerprint
    assert one != make_data_set("a", "a", X + 1, Y).fingerprint
    assert one != make_data_set("a", "a", X, Y[::-1]).fingerprint


# Refusing what is wrong: the file, what was expected, what came.


def test_a_file_that_cannot_be_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.mat: there is no such file"):
        read(tmp_path / "none.mat")
    with pytest.raises(InputError, match=r"expected a file that ends in \.csv, .* got '\.xls'"):
        read(tmp_path / "a.xls")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        read(tmp_path / "folder.csv")


@pytest.mark.parametrize("ending", ["mat", "npz"])
def test_a_damaged_file_is_refused(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    for content in (b"", b"nonsense" * 100, b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no readable"):
            read(path)


def test_a_cut_mat_file_is_refused(tmp_path):
    whole = tmp_path / "whole.mat"
    scipy.io.savemat(whole, {"X": X, "Y": Y}, do_compression=True)
    (tmp_path / "cut.mat").write_bytes(whole.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"cut\.mat"):
        read(tmp_path / "cut.mat")


def test_a_damaged_matlab_7_3_file_is_refused(tmp_path):
    head = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x00" * 512
    (tmp_path / "a.mat").write_bytes(head)
    with pytest.raises(InputError, match=r"no readable MATLAB 7\.3 \(HDF5\) file"):
        read(tmp_path / "a.mat")


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", X=X, Y=np.array(["a", "b", "a", "b"], dtype=object))
    with pytest.raises(InputError, match="archive of plain arrays"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("ending", ["mat", "npz"])
def test_missing_variables_are_named(tmp_path, ending):
    save = scipy.io.savemat if ending == "mat" else lambda path, parts: np.savez(path, **parts)
    save(tmp_path / f"a.{ending}", {"A": X, "B": X, "Y": Y})
    with pytest.raises(InputError, match=r"needs X .* got A 4 x 3, B 4 x 3, Y .*; no X"):
        read(tmp_path / f"a.{ending}")


def test_a_cell_array_of_tables_is_refused(tmp_path):
    cells = np.empty(4, dtype=object)
    cells[:] = [X, X, "a", "b"]
    scipy.io.savemat(tmp_path / "a.mat", {"X": X, "Y": cells})
    with pytest.raises(InputError, match="are a cell array, so each cell must hold a text"):
        read(tmp_path / "a.mat")


def test_an_x_of_cells_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": X.astype(object), "Y": Y})
    with pytest.raises(InputError, match="X must hold real numbers, got the type object"):
        read(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (X, [1, 2, 1], "4 samples .* 3 labels"),
        (X, [1, 2, 1], "4 samples .* is X transposed"),
        (X, [1, 1, 1, 1], "at least 2 classes, got only '1'"),
        (X, [1, 1, 1, 2], "at least 2 samples.*'2' has 1"),
        (X, [1.5, 2, 1, 2], "whole numbers or text, got 1.5"),
        (X, [np.nan, 2, 1, 2], "1 of 4 labels are missing"),
        (X, ["a", "b", "a", ""], "1 of 4 labels are empty"),
        (X, np.array([1, "b", 1, "b"], dtype=object), "whole numbers or text, got the type object"),
        (X, [1j, 2, 1, 2], "whole numbers or text, got the type complex"),
        (X, np.ones((4, 4)), r"one label for each sample, got the shape \(4, 4\)"),
        (X[0], Y, r"samples x features, got the shape \(3,\)"),
        (X[:, :0], Y, r"samples x features, got the shape \(4, 0\)"),
        (X * 1j, Y, "real numbers, got the type complex"),
        (X.astype(str), Y, "real numbers, got the type <U"),
        (np.where(X == 0, np.nan, X), Y, "3 of its entries are not.*nan in sample 2, feature 2"),
        (np.where(X == 4, np.inf, X), Y, "1 of its entries are not.*inf in sample 4, feature 2"),
        (np.where(X == 4, 1e300, X), Y, r"finite in float32.*1e\+300 in sample 4"),
    ],
)
def test_bad_features_and_labels_are_refused(features, labels, message):
    with pytest.raises(InputError, match=f"^from here: .*{message}"):
        make_data_set("a", "from here", features, labels)


@pytest.mark.parametrize(
    ("text", "label", "message"),
    [
        ("", None, "is empty"),
        ("\n\n", None, "is empty"),
        ("g1,g2,class\n", None, "has a header but no samples"),
        ("12a\n34b\n", None, "separated by commas, tabs or semicolons, got '12a'"),
        ("1,2,a\n3,b\n", None, "line 2: expected 3 cells, as in line 1, got 2"),
        ("g1,g2,class\n1,x,a\n", None, r"line 2, column 2 \('g2'\): expected a number, got 'x'"),
        (
            "g1,g2,class\n1,,a\n",
            None,
            "1 of 2 values are missing, the first in sample 1, feature 'g2'",
        ),
        ("g1,g2,class\n1,2,a\n", "kind", "--label 'kind' must name one column .* g1, g2, class"),
        ("g1,g1,class\n1,2,a\n", "g1", "--label 'g1' must name one column"),
        ("1,nan,a\n3,4,b\n", None, "1 of 4 values are missing"),
    ],
)
def test_bad_csv_files_are_refused(tmp_path, text, label, message):
    with pytest.raises(InputError, match=message):
        read(write_csv(tmp_path / "a.csv", text), Reading(label=label))


def test_a_csv_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("1,2,Rücken\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"no readable UTF-8 text.*save it with the encoding"):
        read(tmp_path / "a.csv")


# Splits.

LABELS = np.repeat([0, 1, 2, 3], [20, 9, 3, 2])


def test_a_split_is_stratified_disjoint_and_complete():
    split = stratified_split(LABELS, 1 / 3, seed=5)
    assert not set(split.train) & set(split.test)
    assert sorted([*split.train, *split.test]) == list(range(len(LABELS)))
    np.testing.assert_array_equal(np.bincount(LABELS[split.test]), [7, 3, 1, 1])
    np.testing.assert_array_equal(np.bincount(LABELS[split.train]), [13, 6, 2, 1])


def test_a_split_follows_its_seed():
    one, again = (stratified_split(LABELS, 1 / 3, seed=5) for _ in range(2))
    other = stratified_split(LABELS, 1 / 3, seed=6)
    np.testing.assert_array_equal(one.test, again.test)
    assert not np.array_equal(one.test, other.test)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_every_class_is_on_both_sides(fraction):
    split = stratified_split(LABELS, fraction, seed=0)
    assert set(LABELS[split.train]) == set(LABELS[split.test]) == {0, 1, 2, 3}


def test_inner_folds_validate_each_sample_once_and_keep_lonely_ones_in_training():
    labels = np.array([0] * 11 + [1] * 4 + [2])
    folds = inner_folds(labels, folds=5, seed=1)
    validated = np.concatenate([validation for _, validation in folds])
    assert sorted(validated) == list(range(15))  # all but the only sample of class 2
    for train, validation in folds:
        assert not set(train) & set(validation)
        assert len(train) + len(validation) == len(labels)
        assert len(validation) == 3
        assert set(labels[train]) == {0, 1, 2}


def test_standardising_knows_the_training_part_alone():
    data = make_data_set("a", "a", X, Y)
    split = stratified_split(data.labels, 0.5, seed=0)
    parts = standardise(data, split)
    np.testing.assert_allclose(parts.train_features.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(parts.train_features.std(axis=0), 1, atol=1e-6)

    changed = X.copy()
    changed[split.test] = 1e6
    same = standardise(make_data_set("a", "a", changed, Y), split)
    np.testing.assert_array_equal(same.train_features, parts.train_features)


def test_a_constant_feature_is_only_centred():
    # 0.1 has no exact binary form: the mean of its copies may differ from it in the last place.
    features = np.column_stack([np.full(9, 0.1), np.arange(9.0)])
    data = make_data_set("a", "a", features, [0, 1, 2] * 3)
    parts = standardise(data, stratified_split(data.labels, 1 / 3, seed=0))
    for part in (parts.train_features, parts.test_features):
        np.testing.assert_allclose(part[:, 0], 0, atol=1e-7)
        assert np.isfinite(part).all()


# Generated data, and the classic way on it.


def test_generated_data_follows_its_seed():
    one, again, other = generate(seed=1), generate(seed=1), generate(seed=2)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.features.shape[1] > 10 * one.features.shape[0]
    assert one.features.dtype == np.float32


def test_generated_data_can_be_learned_by_selecting():
    data, settings = generate(seed=3), Settings(penalties=(0.1,), feature_counts=(30, 100))
    split = stratified_split(data.labels, 1 / 3, seed=0)
    search = fit_classic(data, split, settings, seed=0, select=True)
    accuracy = (search.predict(data.features[split.test]) == data.labels[split.test]).mean()
    largest_class = max(data.class_sizes.values()) / len(data.labels)
    assert accuracy > largest_class + 0.15
    assert chosen(search)["k"] in (30, 100)
    assert weight_count(search) == 3 * chosen(search)["k"]  # one against one: three pairs


def test_the_classic_way_manages_tiny_classes_and_constant_features():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(16, 6))
    features[:, 2] = 7.0
    data = make_data_set("a", "a", features, [0] * 9 + [1] * 5 + [2] * 2)
    split = stratified_split(data.labels, 1 / 3, seed=0)
    for select in (True, False):
        search = fit_classic(data, split, Settings(), seed=0, select=select)
        assert search.predict(data.features[split.test]).shape == split.test.shape


def test_the_classic_way_manages_one_sample_a_class():
    data = make_data_set("a", "a", X, Y)
    split = stratified_split(data.labels, 0.5, seed=0)
    search = fit_classic(data, split, Settings(), seed=0, select=True)
    assert set(search.predict(data.features)) <= {0, 1}


def test_a_constant_feature_has_no_f_statistic():
    features = np.column_stack([np.ones(6), [0, 1, 0, 5, 6, 5]])
    scores = f_statistic(features, np.array([0, 0, 0, 1, 1, 1]))
    assert scores[0] == 0
    assert scores[1] > 10


# Real data.


@pytest.mark.parametrize(
    ("name", "samples", "features", "classes"),
    [("colon", 62, 2000, 2), ("lymphoma", 96, 4026, 9), ("nci9", 60, 9712, 9)],
)
def test_real_data_is_read(name, samples, features, classes):
    folder = os.environ.get("TTS_DATA_DIR")
    if folder is None:
        pytest.skip("TTS_DATA_DIR does not name the folder of the real data sets")
    path = Path(folder) / f"{name}.mat"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    data = read(path)
    assert data.features.shape == (samples, features)
    assert len(data.classes) == classes
    split = stratified_split(data.labels, 1 / 3, seed=0)
    assert len(set(data.labels[split.test])) == len(set(data.labels[split.train])) == classes
