"""examples/microarray.py on other formats than delimited text: read, or refused with a reason."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from microarray_study.errors import InputError
from microarray_study.readers import Reading, read, try_out
from microarray_study.readers.entry import read_samples
from scipy import io, sparse

SAMPLES, GENES = 8, 5
X = np.round(np.random.default_rng(0).normal(size=(SAMPLES, GENES)), 3)
KINDS = ["tumor", "normal", "normal", "tumor"] * 2
NAMES = [f"GENE{number}" for number in range(GENES)]
TITLES = [f"patient {number}" for number in range(SAMPLES)]


def check(path: Path, reading: Reading | None = None, *, names=None, titles=None):
    data = read(path, reading)
    np.testing.assert_allclose(data.features, X, rtol=1e-6)
    assert [data.classes[number] for number in data.labels] == KINDS
    if names is not None:
        assert list(data.feature_names) == names
    if titles is not None:
        assert list(data.sample_names) == titles
    return data


def joined(*lines: list[str]) -> str:
    return "".join("\t".join(line) + "\n" for line in lines)


def gene_rows() -> list[list[str]]:
    return [[name, *map(str, X[:, number])] for number, name in enumerate(NAMES)]


# GCT.


def gct_1_3() -> str:
    facts = [["tissue", "na", *KINDS], ["batch", "na", *"12345678"]]
    rows = [[row[0], "a gene", *row[1:]] for row in gene_rows()]
    sizes = [str(GENES), str(SAMPLES), "1", "2"]
    return joined(["#1.3"], sizes, ["id", "Description", *TITLES], *facts, *rows)


def test_gct_1_3_holds_its_labels(tmp_path):
    (tmp_path / "a.gct").write_text(gct_1_3())
    check(tmp_path / "a.gct", Reading(label="tissue"), names=NAMES, titles=TITLES)


def test_gct_1_2_has_a_class_file_beside_it(tmp_path):
    rows = [[row[0], "a gene", *row[1:]] for row in gene_rows()]
    text = joined(["#1.2"], [str(GENES), str(SAMPLES)], ["NAME", "Description", *TITLES], *rows)
    with gzip.open(tmp_path / "a.gct.gz", "wt") as file:
        file.write(text)
    with pytest.raises(InputError, match=r"holds no labels; they must be in a.cls beside it"):
        read(tmp_path / "a.gct.gz")
    order = {"tumor": "0", "normal": "1"}
    numbers = " ".join(order[kind] for kind in KINDS)
    (tmp_path / "a.cls").write_text(f"8 2 1\n# tumor normal\n{numbers}\n")
    check(tmp_path / "a.gct.gz", names=NAMES, titles=TITLES)


def test_a_gct_that_was_cut_off_is_refused(tmp_path):
    (tmp_path / "a.gct").write_text("".join(gct_1_3().splitlines(keepends=True)[:-2]))
    with pytest.raises(InputError, match="line 2 says 5 rows of numbers, got 3; is the file cut"):
        read(tmp_path / "a.gct", Reading(label="tissue"))


# GEO.


def series_matrix(rows: list[list[str]] | None = None) -> str:
    def quoted(cells: list[str]) -> list[str]:
        return [f'"{cell}"' for cell in cells]

    about = [
        ["!Series_title", '"A study"'],
        ["!Sample_title", *quoted(TITLES)],
        ["!Sample_geo_accession", *quoted([f"GSM{number}" for number in range(SAMPLES)])],
        ["!Sample_characteristics_ch1", *quoted([f"tissue: {kind}" for kind in KINDS])],
        ["!Sample_characteristics_ch1", *quoted([f"age: {40 + n}" for n in range(SAMPLES)])],
        ["!series_matrix_table_begin"],
        ['"ID_REF"', *quoted([f"GSM{number}" for number in range(SAMPLES)])],
    ]
    body = [[f'"{row[0]}"', *row[1:]] for row in (rows or gene_rows())]
    return joined(*about, *body, ["!series_matrix_table_end"])


def test_a_series_matrix_takes_its_label_from_a_characteristic(tmp_path):
    path = tmp_path / "GSE1_series_matrix.txt.gz"
    with gzip.open(path, "wt") as file:
        file.write(series_matrix())
    check(path, Reading(characteristic="tissue"), names=NAMES)


def test_a_characteristic_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    (tmp_path / "a.txt").write_text(series_matrix())
    with pytest.raises(InputError, match=r"(?s)stage.*tissue"):
        read(tmp_path / "a.txt", Reading(characteristic="stage"))


# ARFF.


def arff(last: str = "{tumor,normal}") -> str:
    head = [f"@attribute {name} numeric" for name in NAMES]
    rows = [",".join([*map(str, row), kind]) for row, kind in zip(X, KINDS, strict=True)]
    return "\n".join(
        ["% a comment", "@relation study", *head, f"@attribute class {last}", "@data", *rows]
    )


def test_arff_is_read(tmp_path):
    (tmp_path / "a.arff").write_text(arff())
    check(tmp_path / "a.arff", names=NAMES)


def test_sparse_arff_is_read(tmp_path):
    head = arff().split("@data")[0]
    rows = [
        "{" + ", ".join([*(f"{n} {v}" for n, v in enumerate(row)), f"{GENES} {kind}"]) + "}"
        for row, kind in zip(X, KINDS, strict=True)
    ]
    (tmp_path / "a.arff").write_text("\n".join([head, "@data", *rows]))
    check(tmp_path / "a.arff", names=NAMES)


def test_an_arff_without_data_is_refused(tmp_path):
    (tmp_path / "a.arff").write_text(arff().split("@data")[0])
    with pytest.raises(InputError, match="there is no line @data"):
        read(tmp_path / "a.arff")


# Parquet and h5ad.


def test_parquet_is_read(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(X, columns=NAMES).assign(tissue=KINDS)
    frame.to_parquet(tmp_path / "a.parquet")
    check(tmp_path / "a.parquet", names=NAMES)
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match="is no readable Parquet file"):
        read(tmp_path / "b.parquet")


def write_h5ad(path: Path, matrix) -> None:
    anndata = pytest.importorskip("anndata")
    obs = pd.DataFrame({"tissue": pd.Categorical(KINDS), "age": range(SAMPLES)}, index=TITLES)
    anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=NAMES)).write_h5ad(path)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_what_anndata_writes_is_read(tmp_path, form):
    write_h5ad(tmp_path / "a.h5ad", form(X))
    check(tmp_path / "a.h5ad", Reading(label="tissue"), names=NAMES, titles=TITLES)


def test_forged_indices_of_an_h5ad_are_refused(tmp_path):
    write_h5ad(tmp_path / "a.h5ad", sparse.csr_matrix(X))
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["X/indices"][3] = 2**30
    with pytest.raises(InputError, match="X is no well-formed sparse matrix"):
        read(tmp_path / "a.h5ad", Reading(label="tissue"))


# MATLAB and NumPy.


def write_matlab_7_3(path: Path, matrix=None) -> None:
    """A file as `save -v7.3` writes it: HDF5, columns first, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:
        if matrix is None:
            file["X"] = X.T
        else:
            group = file.create_group("X")
            group.attrs["MATLAB_sparse"] = matrix.shape[0]
            group["data"], group["ir"], group["jc"] = matrix.data, matrix.indices, matrix.indptr
        cells = file.create_dataset("Y", (1, SAMPLES), dtype=h5py.ref_dtype)
        for number, kind in enumerate(KINDS):
            text = file.create_dataset(
                f"#refs#/{number}", data=np.array([[ord(letter)] for letter in kind], np.uint16)
            )
            text.attrs["MATLAB_class"] = np.bytes_("char")
            cells[0, number] = text.ref
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(head)


def test_matlab_7_3_is_read(tmp_path):
    write_matlab_7_3(tmp_path / "a.mat")
    check(tmp_path / "a.mat")
    write_matlab_7_3(tmp_path / "b.mat", sparse.csc_matrix(X))
    check(tmp_path / "b.mat")


def test_forged_indices_of_a_matlab_file_are_refused(tmp_path):
    matrix = sparse.csc_matrix(X)
    matrix.indices[3] = 2**30
    write_matlab_7_3(tmp_path / "a.mat", matrix)
    with pytest.raises(InputError, match="X is no well-formed sparse matrix"):
        read(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("features", "labels"), [("fea", "gnd"), ("data", "labels"), ("data", "target"), ("x", "y")]
)
@pytest.mark.parametrize("ending", [".mat", ".npz"])
def test_usual_names_of_arrays_are_known(tmp_path, features, labels, ending):
    numbers = np.array([[1 if kind == "tumor" else 2] for kind in KINDS])
    content = {features: X, labels: numbers}
    path = tmp_path / f"a{ending}"
    if ending == ".mat":
        io.savemat(path, content)
    else:
        np.savez(path, **content)
    data = read(path)
    np.testing.assert_allclose(data.features, X, rtol=1e-6)
    assert [data.classes[n] for n in data.labels] == [str(n) for n in numbers.ravel()]


def test_one_hot_labels_become_classes_and_are_told(tmp_path):
    hot = np.array([[kind == "tumor", kind == "normal"] for kind in KINDS]).astype(int)
    np.savez(tmp_path / "a.npz", X=X, Y=hot)
    data = read(tmp_path / "a.npz")
    assert data.labels.tolist() in (hot[:, 0].tolist(), hot[:, 1].tolist())
    assert data.notes


# New samples.


def test_new_samples_are_put_into_the_order_of_the_training_features(tmp_path):
    frame = pd.DataFrame(X, columns=NAMES)[NAMES[::-1]]
    frame.to_csv(tmp_path / "new.csv", index=False)
    samples = read_samples(tmp_path / "new.csv", Reading(), NAMES)
    np.testing.assert_allclose(samples.features, X, rtol=1e-6)
    frame.drop(columns="GENE2").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(InputError, match=r"1 of 5 features .* lacking: .*GENE2"):
        read_samples(tmp_path / "less.csv", Reading(), NAMES)


@pytest.mark.parametrize("ending", [".xlsx", ".rds", ".pkl", ".png"])
def test_other_files_are_refused_with_a_way_out(tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes(b"anything")
    with pytest.raises(InputError, match="expected a file that ends in"):
        read(tmp_path / f"a{ending}")


# Files that end the library that reads them, or its patience.


@pytest.fixture
def an_h5ad(tmp_path):
    path = tmp_path / "a.h5ad"
    texts = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file["X"] = X.astype(np.float32)
        for name, values in (("obs", TITLES), ("var", NAMES)):
            group = file.create_group(name)
            group.attrs["_index"] = "_index"
            group["_index"] = np.array(values, dtype=texts)
        file["obs"]["tissue"] = np.array(KINDS, dtype=texts)
    return path


def test_a_file_that_kills_its_reader_is_refused(an_h5ad, monkeypatch):
    check(an_h5ad, names=NAMES, titles=TITLES)
    deadly = an_h5ad.with_name("python")
    deadly.write_text("#!/bin/sh\nkill -SEGV $$\n")
    deadly.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(deadly))
    with pytest.raises(
        InputError, match=r"is damaged: the library that reads it crashes \(signal 11"
    ):
        read(an_h5ad)


def test_a_file_that_the_library_does_not_come_back_from_is_refused(an_h5ad, monkeypatch):
    monkeypatch.setattr(try_out, "SECONDS", 0.0)
    with pytest.raises(InputError, match="the library that reads it has not come back after 0 s"):
        read(an_h5ad)


def test_a_matlab_file_that_kills_its_reader_is_refused(tmp_path, monkeypatch):
    io.savemat(tmp_path / "a.mat", {"X": X, "Y": np.array(KINDS, dtype=object)})
    check(tmp_path / "a.mat")
    monkeypatch.setattr(try_out, "status_of_reader", lambda path, limit: -11)
    with pytest.raises(InputError, match=r"the library that reads it crashes \(signal 11"):
        read(tmp_path / "a.mat")
