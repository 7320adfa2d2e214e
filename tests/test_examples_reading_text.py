"""examples/microarray.py on delimited text: how it is written, and which column is what."""

import gzip
from pathlib import Path

import microarray
import numpy as np
import pandas as pd
import pytest
from microarray_study.errors import InputError
from microarray_study.readers import Reading, read

SAMPLES, GENES = 12, 5
RNG = np.random.default_rng(0)
X = np.round(RNG.normal(size=(SAMPLES, GENES)), 3)
KINDS = ["tumor", "normal", "normal"] * 4
NAMES = [f"g{i}" for i in range(GENES)]


def frame(index: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame(X, columns=NAMES, index=index).assign(tissue=KINDS)


def check(path: Path, reading: Reading | None = None, features: list[str] | None = None):
    data = read(path, reading)
    np.testing.assert_allclose(data.features, X, rtol=1e-6)
    assert [data.classes[i] for i in data.labels] == KINDS
    assert list(data.feature_names) == (NAMES if features is None else features)
    assert len(data.sample_names) == SAMPLES
    return data


# How a text is written.


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt", ".tab", ".csv.gz", ".tsv.gz", ".TXT"])
@pytest.mark.parametrize("separator", [",", "\t", ";", " "])
def test_the_delimiter_is_found_whatever_the_ending(tmp_path, ending, separator):
    frame().to_csv(tmp_path / f"a{ending}", sep=separator, index=False)
    data = check(tmp_path / f"a{ending}")
    assert data.name == "a"
    assert any("separated by a" in note for note in data.notes) == (separator != ",")


@pytest.mark.parametrize("separator", [";", "\t", " "])
def test_decimal_commas_are_read_and_told(tmp_path, separator):
    frame().to_csv(tmp_path / "a.csv", sep=separator, decimal=",", index=False)
    assert "numbers have a decimal comma" in check(tmp_path / "a.csv").notes


def test_commas_between_thousands_are_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("a\tb\tkind\n1,234\t12\tx\n17\t2,345\ty\n")
    with pytest.raises(InputError, match="'1,234' seem to have commas between thousands"):
        read(tmp_path / "a.tsv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, encoding):
    frame().to_csv(tmp_path / "a.csv", index=False, encoding=encoding)
    check(tmp_path / "a.csv")


def test_quotes_comments_and_windows_line_ends_are_read(tmp_path):
    text = frame().to_csv(index=False, quoting=2, lineterminator="\r\n")
    (tmp_path / "a.csv").write_bytes(b"# made by hand\r\n\r\n" + text.encode() + b"\r\n\r\n")
    data = check(tmp_path / "a.csv")
    assert "2 lines before the table are left out" in data.notes


def test_a_wide_table_is_read(tmp_path):
    wide = np.round(RNG.normal(size=(6, 30_000)), 4)
    table = pd.DataFrame(wide).assign(kind=list("abcabc"))
    table.to_csv(tmp_path / "a.csv", sep="\t", index=False)
    np.testing.assert_allclose(read(tmp_path / "a.csv").features, wide, rtol=1e-6)


def test_blocks_of_lines_are_put_together(tmp_path, monkeypatch):
    monkeypatch.setattr("microarray_study.readers.cells.BLOCK", 14)
    frame([f"s{i}" for i in range(SAMPLES)]).to_csv(tmp_path / "a.csv")
    assert check(tmp_path / "a.csv").sample_names[-1] == "s11"


@pytest.mark.parametrize("place", [1, 5, 12])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_line_of_another_length_is_refused_with_its_number(tmp_path, place, change):
    lines = frame().to_csv(index=False).splitlines()
    lines[place] = lines[place].partition(",")[2] if change < 0 else "1," + lines[place]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    message = f"line {place + 1}: expected 6 cells, as in line 1, got {6 + change}"
    with pytest.raises(InputError, match=message):
        read(tmp_path / "a.csv", Reading(missing="median"))


def test_a_late_text_is_refused_with_its_place(tmp_path):
    table = pd.concat([frame()] * 3).astype({"g3": object}).reset_index(drop=True)
    table.loc[30, "g3"] = "high"
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=r"line 32, column 4 \('g3'\).*number, got 'high'"):
        read(tmp_path / "a.csv")


def test_a_file_that_is_no_gzip_file_is_refused(tmp_path):
    frame().to_csv(tmp_path / "a.csv.gz", index=False)
    packed = (tmp_path / "a.csv.gz").read_bytes()
    (tmp_path / "a.csv.gz").write_bytes(packed[:-30])
    with pytest.raises(InputError, match=r"a\.csv\.gz: is no readable gzip file"):
        read(tmp_path / "a.csv.gz")


@pytest.mark.parametrize(
    ("ending", "way_out"),
    [
        (".xlsx", "save the sheet as CSV"),
        (".rds", "write it in R with write.csv"),
        (".npy", "numpy.savez"),
        (".zip", "unpack it"),
    ],
)
def test_other_files_are_refused_with_the_way_out(tmp_path, ending, way_out):
    (tmp_path / f"a{ending}").write_bytes(b"")
    with pytest.raises(InputError, match=f"expected a file that ends in .*{way_out}"):
        read(tmp_path / f"a{ending}")


# Which line is the header.


@pytest.mark.parametrize("ids", [[1007, 1053, 117, 121, 1255], [0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("values", [X, np.round(X * 10)])
def test_numeric_names_of_genes_are_a_header(tmp_path, ids, values):
    table = pd.DataFrame(values, columns=ids)
    for name, kinds in (("kind", KINDS), ("group", [1, 2, 2] * 4)):
        table.assign(**{name: kinds}).to_csv(tmp_path / f"{name}.csv", index=False)
        data = read(tmp_path / f"{name}.csv")
        np.testing.assert_allclose(data.features, values, rtol=1e-6)
        assert data.feature_names == tuple(map(str, ids))


def test_a_table_without_a_header_loses_no_sample(tmp_path):
    table = np.round(X * 10).astype(int)
    pd.DataFrame(table).assign(y=KINDS).to_csv(tmp_path / "a.csv", index=False, header=False)
    data = read(tmp_path / "a.csv")
    np.testing.assert_array_equal(data.features, table)
    assert data.feature_names[:2] == ("feature 1", "feature 2")


# Which column names the samples.


def test_an_index_of_names_is_no_feature(tmp_path):
    frame([f"patient {i}" for i in range(SAMPLES)]).to_csv(tmp_path / "a.csv")
    data = check(tmp_path / "a.csv")
    assert data.sample_names[:2] == ("patient 0", "patient 1")
    assert any("taken as sample names" in note for note in data.notes)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["", "id", "ID", "Sample_ID", "number"])
def test_an_index_of_numbers_is_no_feature(tmp_path, first, name):
    table = frame()
    table.insert(0, name, range(first, first + SAMPLES))
    table.to_csv(tmp_path / "a.csv", index=False)
    assert check(tmp_path / "a.csv").sample_names[0] == str(first)


def test_a_shuffled_index_and_an_id_beside_it_are_no_features(tmp_path):
    order = np.random.default_rng(1).permutation(SAMPLES)
    table = frame()
    table.insert(0, "id", [f"p{i}" for i in range(SAMPLES)])
    table.iloc[order].to_csv(tmp_path / "a.csv")
    data = read(tmp_path / "a.csv")
    np.testing.assert_allclose(data.features, X[order], rtol=1e-6)
    assert data.sample_names == tuple(f"p{i}" for i in order)


@pytest.mark.parametrize("separator", ["\t", " ", ","])
def test_row_names_of_r_are_no_feature(tmp_path, separator):
    lines = frame([str(i + 1) for i in range(SAMPLES)]).to_csv(sep=separator).splitlines()
    quoted = separator.join(f'"{name}"' for name in [*NAMES, "tissue"])  # one name less than cells
    (tmp_path / "a.txt").write_text("\n".join([quoted, *lines[1:]]))
    assert check(tmp_path / "a.txt").sample_names[0] == "1"


def test_a_feature_that_looks_like_no_index_stays(tmp_path):
    table = frame()
    table["g0"] = np.arange(SAMPLES) * 7 % 5  # whole numbers that repeat
    table.to_csv(tmp_path / "a.csv", index=False)
    assert read(tmp_path / "a.csv").features.shape == (SAMPLES, GENES)


def test_an_unnamed_column_of_repeated_numbers_is_refused(tmp_path):
    frame([str(i % 4) for i in range(SAMPLES)]).to_csv(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"column 1 has no name.*repeat.*--ignore 'column 1'"):
        read(tmp_path / "a.csv")
    check(tmp_path / "a.csv", Reading(ignore=("column 1",)))


# Which column holds the labels.


@pytest.mark.parametrize("place", [0, 2, 5])
@pytest.mark.parametrize("label", [None, "tissue"])
def test_the_only_column_of_text_holds_the_labels(tmp_path, place, label):
    table = frame()
    table.insert(place, "tissue", table.pop("tissue"))
    table.to_csv(tmp_path / "a.csv", index=False)
    check(tmp_path / "a.csv", Reading(label=label))


@pytest.mark.parametrize("name", ["class", "Label", "Y", "target"])
def test_a_column_called_like_labels_holds_them(tmp_path, name):
    table = pd.DataFrame(X, columns=NAMES)
    table.insert(1, name, [1, 0, 0] * 4)
    table.to_csv(tmp_path / "a.csv", index=False)
    data = read(tmp_path / "a.csv")
    assert data.feature_names == tuple(NAMES)
    assert data.classes == ("0", "1")


@pytest.mark.parametrize("label", ["first", "last"])
def test_the_first_and_the_last_column_need_no_name(tmp_path, label):
    table = pd.DataFrame(X)
    table.insert(0 if label == "first" else GENES, "y", [1, 2, 2] * 4)
    table.to_csv(tmp_path / "a.csv", index=False, header=False)
    np.testing.assert_allclose(
        read(tmp_path / "a.csv", Reading(label=label)).features, X, rtol=1e-6
    )


def test_several_columns_of_text_are_refused_with_the_way_out(tmp_path):
    frame().assign(sex=["f", "m"] * 6).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=r"several columns hold text: 'tissue', 'sex'; --label"):
        read(tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"line 2, column 7 \('sex'\).*got 'f'.*--ignore"):
        read(tmp_path / "a.csv", Reading(label="tissue"))
    check(tmp_path / "a.csv", Reading(label="tissue", ignore=("sex",)))


def test_a_gene_is_not_taken_as_the_label(tmp_path):
    frame().drop(columns="tissue").to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(InputError, match=r"'g4', would be the label.*no whole ones.*--label NAME"):
        read(tmp_path / "a.csv")
    counts = pd.DataFrame(np.arange(60).reshape(12, 5) * 37 % 101, columns=NAMES)
    counts.to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(InputError, match=r"'g4', would be the label.*12 different.*--transpose"):
        read(tmp_path / "b.csv")


@pytest.mark.parametrize("index", [True, False])
def test_discretised_genes_in_rows_are_refused_with_the_way_out(tmp_path, index):
    values = np.random.default_rng(2).integers(-1, 2, size=(300, 20)) * 2
    table = pd.DataFrame(values, columns=[f"s{i}" for i in range(20)])
    table.index = [f"gene{i}" for i in range(300)]
    table.to_csv(tmp_path / "a.csv", index=index)
    with pytest.raises(InputError, match=r"'s19', would be the label.*300 rows.*--transpose"):
        read(tmp_path / "a.csv")


# What is one class, and what is no label.


def with_labels(path: Path, labels: list[str]) -> Path:
    pd.DataFrame(X, columns=NAMES).assign(tissue=labels).to_csv(path, index=False)
    return path


@pytest.mark.parametrize("word", ["NA", "nan", "None", "?", "", "NULL", " n/a "])
@pytest.mark.parametrize("others", [["a", "b"], ["1", "2"]])
def test_missing_labels_are_refused_or_left_out(tmp_path, word, others):
    path = with_labels(tmp_path / "a.csv", [*(others * 5), word, word])
    with pytest.raises(InputError, match=r"2 of 12 labels are .*sample 11; --unlabelled drop"):
        read(path)
    data = read(path, Reading(unlabelled="drop"))
    assert data.classes == tuple(others)
    assert data.features.shape[0] == len(data.sample_names) == 10
    assert "2 samples without a label are left out" in data.notes


@pytest.mark.parametrize(
    ("written", "classes"),
    [
        (["1", "1.0", "2", "2"], ("1", "2")),
        (["Tumor", "tumor ", "normal", "normal"], ("Tumor", "normal")),
        (["A", "a", "b", "b"], ("A", "b")),
        (["stage  II", "stage II", "1.0", "1"], ("1", "stage II")),
    ],
)
def test_spellings_of_one_class_are_merged_and_told(tmp_path, written, classes):
    data = read(with_labels(tmp_path / "a.csv", written * 3))
    assert data.classes == classes
    assert any("are one class" in note for note in data.notes)


# Missing values.


def holed(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = X.copy()
    values[[0, 3, 3], [1, 1, 4]] = np.nan
    table = pd.DataFrame(values, columns=NAMES).assign(tissue=KINDS)
    table.to_csv(tmp_path / "a.csv", index=False, na_rep="NA")
    return tmp_path / "a.csv", values


def test_missing_values_are_refused_with_the_way_out(tmp_path):
    message = (
        r"3 of 60 values are missing.*sample 1, feature 'g1'; 2 features and 2 samples.*--miss"
    )
    with pytest.raises(InputError, match=message):
        read(holed(tmp_path)[0])


def test_missing_values_are_filled_in_or_left_out(tmp_path):
    path, values = holed(tmp_path)
    median = read(path, Reading(missing="median"))
    filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    np.testing.assert_allclose(median.features, filled, rtol=1e-6)
    features = read(path, Reading(missing="drop-features"))
    np.testing.assert_allclose(features.features, X[:, [0, 2, 3]], rtol=1e-6)
    assert features.feature_names == ("g0", "g2", "g3")
    samples = read(path, Reading(missing="drop-samples"))
    assert samples.features.shape == (10, GENES)
    assert samples.sample_names[0] == "sample 2"


def test_an_unknown_way_is_refused():
    with pytest.raises(ValueError, match=r"`missing` must be one of refuse, .*got 'mean'"):
        Reading(missing="mean")


# Through the command.


def test_the_command_tells_what_it_decided(tmp_path, capsys):
    path, _ = holed(tmp_path)
    out = ["--output", str(tmp_path / "out"), "--quick", "--methods", "svm"]
    assert microarray.main([str(path), *out]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--missing median" in error
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    options = ["--missing", "median", "--label", "tissue", "--ignore", "g0"]
    assert microarray.main([str(tmp_path / "b.csv.gz"), *out, *options]) == 0
    told = capsys.readouterr().out
    assert "12 samples x 4 features, 2 classes (8, 4)" in told
    assert "\n  3 of 48 values are missing: the median" in told


def test_lines_without_any_value_are_left_out_and_the_others_keep_their_places(tmp_path):
    lines = frame().to_csv(index=False).splitlines()
    (tmp_path / "a.csv").write_text("\n".join([*lines[:5], ",,,,,", "", *lines[5:], ",,,,,"]))
    assert "2 lines without any value are left out" in check(tmp_path / "a.csv").notes
    table = frame().assign(sex="f").to_csv(index=False).splitlines()
    (tmp_path / "b.csv").write_text("\n".join([*table[:5], ",,,,,,", "", *table[5:]]))
    with pytest.raises(InputError, match=r"line 2, column 7 \('sex'\)"):
        read(tmp_path / "b.csv", Reading(label="tissue"))


def test_a_wide_table_has_the_same_refusals(tmp_path, monkeypatch):
    monkeypatch.setattr("microarray_study.readers.cells.WIDE", 3)
    path, values = holed(tmp_path)
    filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    np.testing.assert_allclose(read(path, Reading(missing="median")).features, filled, rtol=1e-6)
    for separator in ("\t", ";", " "):
        frame().to_csv(tmp_path / "b.csv", sep=separator, decimal=",", index=False)
        check(tmp_path / "b.csv")
    lines = frame().to_csv(index=False).splitlines()
    (tmp_path / "c.csv").write_text("\n".join([*lines, "1,2,tumor"]))
    with pytest.raises(InputError, match="line 14: expected 6 cells, as in line 1, got 3"):
        read(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text("\n".join([*lines, "1,2,3,high,5,tumor"] * 2))
    with pytest.raises(InputError, match=r"line 14, column 4 \('g3'\).*got 'high'"):
        read(tmp_path / "c.csv")


# A name that got lost.


@pytest.mark.parametrize("lost", ["g0", "g2", "tissue"])
@pytest.mark.parametrize("index", ["id", "", "numbers", "none", "labels first"])
def test_a_name_that_got_lost_does_not_move_the_others(tmp_path, index, lost):
    table = frame()
    if index == "labels first":
        table = table[["tissue", *NAMES]]
    elif index != "none":
        numbers = range(1, SAMPLES + 1) if index == "numbers" else [f"p{i}" for i in range(SAMPLES)]
        table.insert(0, "id" if index == "numbers" else index, list(numbers))
    lines = table.to_csv(index=False).split("\n")
    lines[0] = ",".join(name for name in lines[0].split(",") if name != lost)
    (tmp_path / "a.csv").write_text("\n".join(lines))
    names, columns = len(table.columns) - 1, len(table.columns)
    with pytest.raises(InputError, match=f"has {names} names for {columns} columns; which one"):
        read(tmp_path / "a.csv", Reading(label=None if lost == "tissue" else "tissue"))


@pytest.mark.parametrize("rows", ["p{}", "{}"])
def test_the_name_that_r_leaves_out_may_be_lacking(tmp_path, rows):
    table = frame([rows.format(i + 1) for i in range(SAMPLES)])
    text = table.to_csv(sep="\t")
    (tmp_path / "a.tsv").write_text(text[1:])
    check(tmp_path / "a.tsv")


def test_a_doubled_name_between_tabs_does_not_make_spaces_separate_cells(tmp_path):
    lines = frame([f"p{i}" for i in range(SAMPLES)]).to_csv(sep="\t").split("\n")
    lines[0] = lines[0].replace("g2", "g2\tg2")
    (tmp_path / "a.tsv").write_text("\n".join(lines))
    with pytest.raises(InputError, match="cells"):
        read(tmp_path / "a.tsv")
