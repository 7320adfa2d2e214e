"""How many permuted copies of genes a ranking puts among its best 200.

    python -m benchmarks.accuracy.permuted --data FOLDER

Columns of a third of the genes, each with its samples shuffled, are mixed in: a quarter of the
table says nothing about the classes. A ranking by chance puts 50 of them among the best 200.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torch_truly_sparse.estimators import TrulySparseClassifier, rank_features

from .classic import f_statistic, standardised
from .data_sets import load

SETS = ("colon", "leukemia", "Prostate-GE", "TOX-171")
BEST = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each data set; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.permuted")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(arguments)
    print("| data set | rank_features | F statistic | sum of absolute weights |\n|---|---|---|---|")
    for name in SETS:
        data = load(options.data, name)
        rng = np.random.default_rng(0)
        genes = data.features.shape[1]
        copied = rng.choice(genes, genes // 3, replace=False)
        shuffled = np.stack([rng.permutation(data.features[:, gene]) for gene in copied], axis=1)
        table = np.hstack([data.features, shuffled])
        classifier = TrulySparseClassifier(random_state=0).fit(table, data.labels)
        first = classifier.ensemble_.first
        strength = np.bincount(
            first.indices[1].numpy(), np.abs(first.values.numpy()), minlength=table.shape[1]
        )
        scores = f_statistic(standardised(table, table)[0], data.labels)
        counts = [
            int((order[:BEST] >= genes).sum())
            for order in (
                rank_features(classifier).columns,
                np.argsort(-scores, kind="stable"),
                np.argsort(-strength, kind="stable"),
            )
        ]
        print(f"| {name} | {' | '.join(map(str, counts))} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
