"""What is compared, and the settings that every network of a comparison shares."""

from __future__ import annotations

from dataclasses import dataclass

ESTIMATORS = {"classifier": "truly sparse classifier"}
NETWORKS = {
    "sparse": "MLP trained by SET",
    "masked": "its masked-dense twin",
    "dense": "dense MLP",
}
CLASSIC = {
    "two_phase": "selection, linear SVM",
    "svm": "linear SVM, all features",
}
METHODS = ESTIMATORS | NETWORKS | CLASSIC
# Left out unless asked for: it shows what a mask costs, and takes longer than all others together.
DEFAULT_METHODS = tuple(method for method in METHODS if method != "masked")


@dataclass(frozen=True)
class Settings:
    """The setting of the SET code (Mocanu et al. 2018), the same for every data set.

    Where we differ from it, and why, is in docs/microarray.md: cross-entropy, the scale of new
    weights, the learning rate and the epochs.
    """

    hidden: tuple[int, ...] = (1000, 1000, 1000)
    epsilon: float = 20.0  # Erdos-Renyi: a layer has epsilon * (inputs + outputs) connections
    fraction: float = 0.3  # of a layer's connections replaced in every evolution, each epoch
    epochs: int = 50
    batch_size: int = 2
    lr: float = 0.003
    momentum: float = 0.9
    weight_decay: float = 2e-4
    seed: int = 0
    classifier_epochs: int = 60  # of the truly sparse classifier, which has a recipe of its own
    threads: int = 1  # so that figures do not depend on what the other cores do
    test_fraction: float = 1 / 3
    # The classic way chooses among these by cross-validation inside each training split.
    feature_counts: tuple[int, ...] = (10, 30, 100, 300, 1000)
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)  # C of the SVM
    inner_folds: int = 5

    def seed_of(self, split: int) -> int:
        """The seed of a split (from 0): for its samples, topologies, weights and batches."""
        return 1000 * self.seed + split
