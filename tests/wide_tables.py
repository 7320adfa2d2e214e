"""Tables of few samples with many features, and estimators small enough for tests."""

import numpy as np

QUICK = {"n_estimators": 2, "hidden_units": 60, "max_epochs": 15, "random_state": 0}


def wide(samples=60, features=300, informative=20, classes=2, seed=0):
    """Samples of which `informative` features tell the classes apart, and others do not."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    X = rng.normal(size=(samples, features))
    X[:, :informative] += 1.5 * rng.normal(size=(classes, informative))[y]
    return X, np.array(["healthy", "ill", "unclear"])[y]
