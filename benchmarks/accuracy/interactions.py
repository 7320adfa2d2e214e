"""Features that matter only together: what each way of growing connections makes of them.

    python -m benchmarks.accuracy.interactions

The class is the sign of a product of two features; alone, each says nothing. 1,500 samples to learn
from, 1,000 to test, other features are noise.
"""

from __future__ import annotations

import statistics
import sys

import numpy as np

from torch_truly_sparse.estimators import TrulySparseClassifier, rank_features

LEARNED, TESTED, SEEDS = 1500, 1000, 3
PAIR = (3, 17)
SHIPPED = TrulySparseClassifier().evolution
EVOLUTIONS = ("set", "gradient", None)


def main() -> int:
    """Print a line for each number of features; returns the exit status."""
    heads = [f"accuracy, {evolution or 'static'}" for evolution in EVOLUTIONS]
    print(f"| features | {' | '.join(heads)} | ranks of the two |")
    print(f"|---|{'---|' * len(heads)}---|")
    for features in (40, 100):
        accuracies: dict[str | None, list[float]] = {name: [] for name in EVOLUTIONS}
        ranks = []
        for seed in range(SEEDS):
            rng = np.random.default_rng(seed)
            table = rng.normal(size=(LEARNED + TESTED, features))
            labels = table[:, PAIR[0]] * table[:, PAIR[1]] > 0
            for evolution in EVOLUTIONS:
                classifier = TrulySparseClassifier(evolution=evolution, random_state=seed)
                classifier.fit(table[:LEARNED], labels[:LEARNED])
                accuracies[evolution].append(classifier.score(table[LEARNED:], labels[LEARNED:]))
                if evolution == SHIPPED:
                    order = rank_features(classifier).columns.tolist()
                    ranks.append(" and ".join(str(order.index(one) + 1) for one in PAIR))
        cells = [f"{100 * statistics.fmean(accuracies[name]):.1f}" for name in EVOLUTIONS]
        print(f"| {features} | {' | '.join(cells)} | {', '.join(ranks)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
