"""What the classifier and the regressor share: parameters, scaling, training, members."""

from __future__ import annotations

import contextlib
import copy
import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from .._arguments import as_float, as_int
from .attribution import contributions, shares
from .ensemble import SparseEnsemble
from .recipe import EVOLUTIONS, Recipe, as_positive
from .rows import DenseRows, Rows, SparseRows
from .scaling import (
    BLOCK,
    FeatureScaling,
    feature_weights,
    robust_center_and_scale,
    sparse_scale,
)
from .tables import MISSING, checked_table, remember_features
from .training import Loss, Schedule, train

Statistic = Callable[[Rows], npt.NDArray[np.float64]]


class TrulySparseEstimator(BaseEstimator):  # type: ignore[misc]
    """An ensemble of truly sparse networks that is fitted as scikit-learn's estimators are.

    Users take `TrulySparseClassifier` or `TrulySparseRegressor`.
    """

    _ensemble_class = SparseEnsemble  # what is compared with truly sparse networks has another

    def __init__(
        self,
        n_estimators: int = 8,
        *,
        hidden_units: int = 1000,
        epsilon: float = 5.0,
        evolution: str | None = "set",
        max_epochs: int = 60,
        batch_size: int | str = "auto",
        learning_rate: float = 0.003,
        input_dropout: float = 0.5,
        missing: str = "refuse",
        recipe: Recipe | None = None,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_estimators = n_estimators
        self.hidden_units = hidden_units
        self.epsilon = epsilon
        self.evolution = evolution
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.input_dropout = input_dropout
        self.missing = missing
        self.recipe = recipe
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        """Say what scikit-learn may give: sparse tables, and missing values if they are filled."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "median"
        tags.non_deterministic = False
        return tags

    @property
    def n_weights_(self) -> int:
        """Number of weights of all members: connections, and weights of the output layers."""
        check_is_fitted(self, "ensemble_")
        return int(self.ensemble_.weights)

    @property
    def feature_importances_(self) -> npt.NDArray[np.float32]:
        """(n_features_in_,) float32: how consistently each feature moves the outputs; sums to 1.

        docs/estimators.md has the formula; `rank_features` makes a table of them.
        """
        check_is_fitted(self, "ensemble_")
        importances: npt.NDArray[np.float32] = self._importances
        return importances

    def members(self) -> list[nn.Sequential]:
        """Return the networks as plain PyTorch modules, which share no memory with the estimator.

        Returns:
            For each member nn.Sequential(scaling, TrulySparseLinear, ReLU, Linear). Its input is
            (samples, features) as `predict` takes it, its output (samples, outputs) float32. The
            mean of the outputs of all members is what the estimator decides by.
        """
        check_is_fitted(self, "ensemble_")
        networks = []
        for number in range(self.ensemble_.members):
            scaling = copy.deepcopy(self.scaling_)
            networks.append(nn.Sequential(scaling, *self.ensemble_.member(number)).eval())
        return networks

    # -- fitting -----------------------------------------------------------------------------------

    def _checked_settings(self, samples: int) -> tuple[Schedule, Recipe]:
        """Check all parameters but those that only one of the estimators has."""
        as_int(self.n_estimators, "n_estimators", least=1)
        as_int(self.hidden_units, "hidden_units", least=1)
        epochs = as_int(self.max_epochs, "max_epochs", least=1)
        rate = as_positive(self.learning_rate, "learning_rate")
        as_positive(self.epsilon, "epsilon")
        dropout = as_float(self.input_dropout, "input_dropout")
        if not 0 <= dropout < 1 or round(256 * dropout) > 255:
            raise ValueError(f"`input_dropout` must lie in [0, 1), got {dropout}")
        if self.evolution not in EVOLUTIONS:
            raise ValueError(f"`evolution` must be one of {EVOLUTIONS}, got {self.evolution!r}")
        if self.missing not in MISSING:
            raise ValueError(f"`missing` must be one of {MISSING}, got {self.missing!r}")
        if self.recipe is not None and not isinstance(self.recipe, Recipe):
            raise TypeError(f"`recipe` must be a Recipe or None, got {type(self.recipe).__name__}")
        if isinstance(self.batch_size, str):
            if self.batch_size != "auto":
                raise ValueError(f"`batch_size` must be 'auto' or an int, got {self.batch_size!r}")
            batch = automatic_batch_size(samples)
        else:
            batch = as_int(self.batch_size, "batch_size", least=1)
        recipe = self.recipe or Recipe()
        return Schedule(epochs, batch, rate, dropout, self.evolution), recipe

    def _fit(
        self,
        original: Any,
        table: Any,
        settings: tuple[Schedule, Recipe],
        statistic: Statistic,
        loss: Loss,
        targets: Tensor,
    ) -> None:
        """Scale the table, train the ensemble, and keep what predicting needs.

        Args:
            original: the table as it was given, which says the names of the features.
            table: the checked table.
            settings: of the training.
            statistic: makes the F statistic of each feature of the scaled table.
            loss: of each member.
            targets: (samples, outputs) float32, what the outputs should be.
        """
        schedule, recipe = settings
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        generator = torch.Generator().manual_seed(seed)
        with torch_threads(self.n_jobs), self._progress(schedule.epochs) as after_epoch:
            scaling, rows = _scaled_rows(table, statistic, recipe)
            ensemble = self._ensemble_class(
                rows.features,
                targets.shape[1],
                members=self.n_estimators,
                hidden=self.hidden_units,
                epsilon=self.epsilon,
                generator=generator,
            )
            losses = train(ensemble, rows, loss, targets, schedule, recipe, generator, after_epoch)
            if not all(map(math.isfinite, losses)):
                raise ValueError(
                    f"the training diverged in epoch {len(losses)}: the loss is {losses[-1]}; "
                    f"lower `learning_rate` (now {schedule.learning_rate:g})"
                )
            ensemble = ensemble.compact()
            found = contributions(ensemble, rows, targets, generator)
        remember_features(self, original)
        self.scaling_, self.ensemble_ = scaling, ensemble
        self.member_importances_ = torch.stack([shares(one) for one in found.members]).numpy()
        self._importances = shares(found.ensemble).numpy()
        self.loss_curve_, self.n_iter_ = losses, len(losses)

    @contextlib.contextmanager
    def _progress(self, epochs: int) -> Iterator[Callable[[float], bool]]:
        """Give what is called after each epoch: a progress bar, if `verbose` asks for one.

        Training also ends once the loss is no number: the epochs left could not mend it.
        """
        if not self.verbose:
            yield lambda loss: not math.isfinite(loss)
            return
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise ImportError("verbose=1 needs tqdm: pip install tqdm") from error
        with tqdm(total=epochs, desc=type(self).__name__, unit="epoch") as bar:

            def after_epoch(loss: float) -> bool:
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update()
                return not math.isfinite(loss)

            yield after_epoch

    # -- predicting --------------------------------------------------------------------------------

    @torch.no_grad()
    def _mean_outputs(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the mean of the members' outputs, (samples, outputs)."""
        check_is_fitted(self, "ensemble_")
        table = checked_table(self, X, missing=self.missing)
        step = max(1, 2 * BLOCK // max(1, table.shape[1]))
        parts = []
        with torch_threads(self.n_jobs):
            for start in range(0, table.shape[0], step):
                block = _scaled(table[start : start + step], self.scaling_)
                input, columns = block.batch(torch.arange(block.samples))
                parts.append(self.ensemble_(input, columns).double().mean(dim=0))
        outputs: npt.NDArray[np.float64] = torch.cat(parts).numpy()
        return outputs


def automatic_batch_size(samples: int) -> int:
    """Return 16 for up to 1024 samples, then samples / 64, at most 256."""
    return min(max(16, samples // 64), 256)


@contextlib.contextmanager
def torch_threads(n_jobs: int | None) -> Iterator[None]:
    """Use as many threads of torch as `n_jobs` says, then as many as before; None: as torch does.

    Raises:
        ValueError: `n_jobs` is 0.
    """
    if n_jobs is None:
        yield
        return
    wanted = as_int(n_jobs, "n_jobs")
    if wanted == 0:
        raise ValueError("`n_jobs` must be a number of threads, -1 for all cores, or None; got 0")
    if wanted < 0:
        wanted = max(1, (os.cpu_count() or 1) + 1 + wanted)
    before = torch.get_num_threads()
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scaled_rows(table: Any, statistic: Statistic, recipe: Recipe) -> tuple[FeatureScaling, Rows]:
    """Fit the scaling on a table, and return it with the scaled samples."""
    features = table.shape[1]
    ones = np.ones(features)
    if sparse.issparse(table):
        center, inverse = np.zeros(features), sparse_scale(table)
    else:
        center, inverse = robust_center_and_scale(table)
    rows = _scaled(table, FeatureScaling(center, inverse, ones, recipe.clip))
    weight = ones
    if recipe.feature_weight:
        weight = feature_weights(statistic(rows), recipe.feature_weight, recipe.weight_floor)
        rows.reweighted(torch.from_numpy(weight).float())
    return FeatureScaling(center, inverse, weight, recipe.clip), rows


def _scaled(table: Any, scaling: FeatureScaling) -> Rows:
    """Return the samples of a table, scaled.

    A sparse table stays sparse unless its zeros move: then the scaling was fitted on a dense table,
    and what comes here is a block of samples to predict.
    """
    if sparse.issparse(table) and scaling.center.any():
        table = table.toarray()
    if sparse.issparse(table):
        scaled = table.astype(np.float32, copy=True)
        scaled.data = scaling.stored(table.data, table.indices)
        return SparseRows(scaled)
    rows = torch.empty(table.shape, dtype=torch.float32)
    step = max(1, BLOCK // max(1, table.shape[1]))
    for start in range(0, len(table), step):
        block = np.ascontiguousarray(table[start : start + step])
        if not block.flags.writeable:  # a memory map of joblib; torch warns of it
            block = block.copy()
        rows[start : start + step] = scaling(torch.from_numpy(block))
    return DenseRows(rows)
