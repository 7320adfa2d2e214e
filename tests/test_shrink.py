"""Rules by which a network loses connections for good."""

import math

import numpy as np
import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd, train_step, view
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import rules


@both_twins
@pytest.mark.parametrize("percentile", [0, 10, 20, 33.3, 50, 100])
def test_weak_neurons_are_those_of_numpys_percentile(layer_type, percentile: float) -> None:
    layer = layer_type(30, 41, density=0.1, generator=seeded(), dtype=torch.float64)
    dense = torch.zeros(41, 30, dtype=torch.float64)
    rows, columns = layer.indices.long()
    dense[rows, columns] = layer.gather(layer.weight_parameter.detach())
    importance = dense.abs().sum(1).numpy()
    weak = importance <= np.percentile(importance, percentile)
    rule = rules.ImportancePrune(percentile, every=1, start=0)
    dropped = rule.select(view(layer, evolutions=1), generator=None)
    assert dropped.tolist() == weak[rows.numpy()].tolist()
    assert 0 < weak.sum() <= 41


@pytest.mark.parametrize(
    "rule", [rules.ImportancePrune(), rules.ImportancePrune.parallel()], ids=repr
)
def test_neurons_are_cut_at_the_epochs_of_the_reference(rule: rules.ImportancePrune) -> None:
    layer = tts.TrulySparseLinear(6, 5, nnz=20, generator=seeded())
    cut = [e for e in range(300) if rule.select(view(layer, evolutions=e), generator=None).any()]
    assert cut == [e for e in range(300) if e > 200 and e % rule.every == 0]
    output = view(layer, evolutions=cut[0], is_output=True)
    assert not rule.select(output, generator=None).any()


@both_twins
def test_a_network_loses_neurons_and_the_output_layer_none(layer_type) -> None:
    model = network(layer_type)
    optimizer = sgd(model)
    evolution = tts.SparseEvolution(
        model,
        optimizer,
        shrink=rules.ImportancePrune(50, every=2, start=1),
        fraction=0,
        every=1,
    )
    sizes = []
    for step in range(8):
        train_step(model, optimizer, seed=step)
        sizes.append((model[0].nnz, model[2].nnz))
    assert {size for _, size in sizes} == {40}
    first = [size for size, _ in sizes]
    # Evolutions 2, 4 and 6 cut; they come after steps 4, 6 and 8. The dead count among the weakest.
    assert first[:3] == [72] * 3
    assert 0 < first[3] < 72
    assert first[3:] == [first[3]] * 5
    assert len(model[0].indices[0].unique()) == 10
    record = evolution.history[2].layers[0]
    assert (record.pruned, record.regrown, record.nnz) == (72 - first[3], 0, first[3])


def test_the_exchange_goes_on_among_what_remains() -> None:
    model = network()
    evolution = tts.SparseEvolution(
        model,
        sgd(model),
        prune="magnitude",
        shrink=rules.GradualMagnitude(initial_density=0.3, final_density=0.1, end=1),
        fraction=0.5,
        regrow=rules.RandomRegrow("zeros"),
    )
    evolution.steps = 1
    largest = [layer.values.detach().abs().sort().values for layer in (model[0], model[2])]
    record = evolution.step()
    for layer, was, entry, wanted in zip(
        (model[0], model[2]), largest, record.layers, (24, 10), strict=True
    ):
        assert layer.nnz == entry.nnz == wanted
        assert entry.regrown == wanted // 2
        assert entry.pruned == len(was) - wanted + wanted // 2
        kept = layer.values.detach().abs().sort().values[wanted // 2 :]
        assert torch.equal(kept, was[-(wanted // 2) :])


def test_a_dense_layer_becomes_as_sparse_as_the_cubic_schedule_says() -> None:
    layer = tts.TrulySparseLinear(10, 10, density=1.0, generator=seeded())
    optimizer = sgd(layer)
    rule = rules.GradualMagnitude(final_density=0.1, start=2, end=12)
    evolution = tts.SparseEvolution(layer, optimizer, shrink=rule, fraction=0, every=1)
    for _ in range(14):
        optimizer.zero_grad()
        layer(torch.randn(4, 10)).square().mean().backward()
        optimizer.step()
    sizes = {record.step: record.layers[0].nnz for record in evolution.history}
    expected = {
        step: round(100 * (0.1 + 0.9 * (1 - min(max(step - 2, 0), 10) / 10) ** 3))
        for step in range(2, 15)
    }
    assert sizes == expected


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: rules.ImportancePrune(101),
            ValueError,
            r"`percentile` must lie in \[0, 100\]",
        ),
        (lambda: rules.ImportancePrune(math.nan), ValueError, "`percentile` must lie"),
        (
            lambda: rules.ImportancePrune(every=0),
            ValueError,
            "`every` must be at least 1, got 0",
        ),
        (
            lambda: rules.ImportancePrune(start=1.0),
            TypeError,
            "`start` must be an int, got float",
        ),
        (lambda: rules.GradualMagnitude(1.1, 10), ValueError, "`final_density` must lie in"),
        (
            lambda: rules.GradualMagnitude(0.5, 10, 0.4),
            ValueError,
            "`final_density` must lie in",
        ),
        (
            lambda: rules.GradualMagnitude(0.5, 10, 1.4),
            ValueError,
            "`initial_density` must lie in",
        ),
        (
            lambda: rules.GradualMagnitude(0.5, 10, start=10),
            ValueError,
            "`end` must be above `start`, 10, got 10",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_dense_head_is_the_output_so_that_every_sparse_layer_is_hidden() -> None:
    seen = {}

    class Note(rules.ShrinkRule):
        def select(self, view, *, generator):
            seen[view.name] = view.is_output
            return torch.zeros(view.nnz, dtype=torch.bool)

    for model in (network(), nn.Sequential(network(), nn.ReLU(), nn.Linear(5, 2))):
        tts.SparseEvolution(model, sgd(model), shrink=Note()).step()
    assert seen == {"0": False, "2": True, "0.0": False, "0.2": False}


def test_a_density_is_rounded_as_by_a_layer() -> None:
    layer = tts.TrulySparseLinear(10, 1, density=1.0)
    rule = rules.GradualMagnitude(final_density=0.05, end=1)
    evolution = tts.SparseEvolution(layer, sgd(layer), shrink=rule, fraction=0)
    evolution.steps = 1
    evolution.step()
    assert layer.nnz == tts.TrulySparseLinear(10, 1, density=0.05).nnz == 1
