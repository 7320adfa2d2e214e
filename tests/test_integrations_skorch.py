"""`integrations.skorch.EvolutionCallback` in skorch's own loop: copies, pickles, searches."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

import torch_truly_sparse as tts

skorch = pytest.importorskip("skorch")

from torch_truly_sparse.integrations.logger import SparsityLogger  # noqa: E402
from torch_truly_sparse.integrations.skorch import EvolutionCallback  # noqa: E402

X = np.random.default_rng(0).normal(size=(80, 30)).astype("float32")
Y = (X[:, 0] + X[:, 1] > 0).astype("int64")


class Network(nn.Module):
    """Begins with the same weights each time, in whatever process."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        self.layers = nn.Sequential(
            tts.TrulySparseLinear(30, 20, nnz=120, generator=g),
            nn.ReLU(),
            tts.TrulySparseLinear(20, 2, nnz=20, generator=g),
        )

    def forward(self, X: torch.Tensor) -> torch.Tensor:  # skorch names it so
        return self.layers(X)


def net(callback: EvolutionCallback | None = None, **settings: Any) -> Any:
    chosen = {"max_epochs": 4, "lr": 0.05, "batch_size": 16, "train_split": None, **settings}
    return skorch.NeuralNetClassifier(
        Network,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        callbacks=[("evolution", callback or EvolutionCallback(tts.SET, seed=2))],
        verbose=0,
        **chosen,
    )


def evolution_of(trained: Any) -> Any:
    return dict(trained.callbacks_)["evolution"].evolution_


def same(one: Any, other: Any) -> None:
    for a, b in zip(
        one.module_.state_dict().values(), other.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("method", [tts.SET, tts.RigL, tts.MEST])
def test_a_fit_does_what_a_plain_loop_does(method: Any) -> None:
    trained = net(EvolutionCallback(method, seed=2)).fit(X, Y)
    module = Network()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    settings = {} if method is tts.SET else {"total_steps": 20}
    generator = torch.Generator().manual_seed(2)
    evolution = method(module, optimizer, every=5, generator=generator, **settings)
    for _ in range(4):
        for first in range(0, 80, 16):
            optimizer.zero_grad()
            x, y = torch.from_numpy(X[first : first + 16]), torch.from_numpy(Y[first : first + 16])
            nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
    for a, b in zip(
        module.state_dict().values(), trained.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    assert evolution_of(trained).history == evolution.history
    assert len(evolution.history) > 1


def joined(trained: Any) -> Any:
    file = io.BytesIO()
    joblib.dump(trained, file)
    file.seek(0)
    return joblib.load(file)


COPIES: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    lambda trained: pickle.loads(pickle.dumps(trained)),
    joined,
]


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "joblib"])
@pytest.mark.parametrize("every", ["epoch", 3])
@pytest.mark.parametrize("regrow", ["random", "gradient", "momentum"])
def test_a_copy_trains_on_as_the_original(copied: Any, every: Any, regrow: str) -> None:
    callback = EvolutionCallback(every=every, seed=2, settings={"regrow": regrow})
    trained = net(callback, max_epochs=2).fit(X, Y)
    before = trained.module_.state_dict()["layers.0.indices"].clone()
    other = copied(trained)
    same(trained, other)
    other.partial_fit(X, Y)
    assert torch.equal(trained.module_.state_dict()["layers.0.indices"], before)
    trained.partial_fit(X, Y)
    same(trained, other)
    assert evolution_of(trained).history == evolution_of(other).history
    assert evolution_of(other).steps == 20
    assert len(evolution_of(other).history) > 2


def test_partial_fit_goes_on() -> None:
    whole, parts = net(), net(max_epochs=2)
    whole.fit(X, Y)
    parts.fit(X, Y).partial_fit(X, Y)
    same(whole, parts)
    assert len(evolution_of(parts).history) == 3


def test_a_second_fit_evolves_its_own_module() -> None:
    trained = net().fit(X, Y)
    first = evolution_of(trained)
    trained.fit(X, Y)
    second = evolution_of(trained)
    assert second is not first
    assert len(second.history) == len(first.history) == 3
    same(trained, net().fit(X, Y))


def test_a_logger_is_told_of_each_evolution() -> None:
    written: list[tuple[str, int]] = []
    logger = SparsityLogger(lambda name, value, step: written.append((name, step)))
    net(EvolutionCallback(tts.SET, seed=2, logger=logger)).fit(X, Y)
    assert [s for n, s in written if n == "sparsity/layers.0/density"] == [6, 11, 16]


def test_clones_are_unfitted_and_train_alike() -> None:
    trained = net().fit(X, Y)
    again = clone(trained).fit(X, Y)
    same(trained, again)


def test_a_search_gives_the_same_scores_in_any_number_of_processes() -> None:
    scores = []
    for jobs in 1, 2:
        search = GridSearchCV(
            net(),
            {"callbacks__evolution__every": ["epoch", 2], "lr": [0.02, 0.05]},
            cv=2,
            n_jobs=jobs,
        ).fit(X, Y)
        scores.append(search.cv_results_["mean_test_score"])
        assert len(evolution_of(search.best_estimator_).history) > 1
    assert np.array_equal(*scores)


@pytest.mark.parametrize(
    ("callback", "error", "text"),
    [
        (EvolutionCallback(tts.SET, every="step"), ValueError, '`every` must be "epoch"'),
        (EvolutionCallback(tts.SET, every=0), ValueError, "`every` must be at least 1"),
        (EvolutionCallback(tts.SET, seed="x"), TypeError, "`seed` must be an int"),
        (EvolutionCallback(settings={"fraction": 2.0}), ValueError, "fraction"),
    ],
)
def test_wrong_settings_are_named(callback: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        net(callback).fit(X, Y)
