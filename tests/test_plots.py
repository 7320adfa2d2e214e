"""`torch_truly_sparse.plots`: what is drawn are the numbers of the layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from evolving_network import both_twins, network, seeded, sgd, train_step
from torch import nn

import torch_truly_sparse as tts
from torch_truly_sparse import plots
from torch_truly_sparse.plots.run import quantiles

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure, drawn = plt.subplots()
    yield drawn
    figure.canvas.draw()  # what cannot be drawn fails here
    plt.close(figure)


def dense_mask(layer: tts.nn.SparseLayer) -> torch.Tensor:
    mask = torch.zeros(layer.out_features, layer.in_features, dtype=torch.long)
    rows, columns = layer.topology.indices.long()
    mask[rows, columns] = 1
    return mask


def recorded(layer_type: type[Any] = tts.TrulySparseLinear) -> tuple[nn.Module, plots.Recording]:
    model = network(layer_type)
    optimizer = sgd(model)
    recording = plots.Recording(tts.SET(model, optimizer, every=2, generator=seeded()))
    for seed in range(7):
        train_step(model, optimizer, seed)
    return model, recording


@both_twins
def test_degrees_are_shares_of_the_units(layer_type: type[Any], axes: Axes) -> None:
    layer = network(layer_type)[0]
    assert plots.degrees(layer, axes) is axes
    outputs, inputs = axes.patches
    for patch, dimension in (outputs, 1), (inputs, 0):
        shares, edges, _ = patch.get_data()
        wanted = torch.bincount(dense_mask(layer).sum(dimension)).double()
        np.testing.assert_allclose(shares, wanted / wanted.sum())
        assert edges[0] == -0.5


def test_densities_of_sparse_packed_and_dense_layers(axes: Axes) -> None:
    model = nn.Sequential(tts.TrulySparseLinear(40, 30, density=0.1), nn.Linear(30, 5))
    plots.densities(nn.Sequential(model, tts.pack(model[0])), axes)
    bars = [bar.get_width() for bar in axes.patches]
    np.testing.assert_allclose(bars, [10, 100, 10])
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["120 of 1,200", "150 of 150", "120 of 1,200"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0.0", "0.1", "1"]


@both_twins
@pytest.mark.parametrize("shape", [(3, 4), (2, 3), (1, 12)])
def test_the_image_counts_the_connections_of_each_pixel(
    layer_type: type[Any], shape: tuple[int, int], axes: Axes
) -> None:
    layer = network(layer_type)[0]
    plots.input_image(layer, shape, axes)
    (image,) = axes.images
    wanted = dense_mask(layer).sum(0).reshape(-1, *shape).sum(0)
    np.testing.assert_array_equal(image.get_array(), wanted)


def test_the_ranking_of_a_layer_sums_absolute_weights(axes: Axes) -> None:
    layer = network()[0]
    names = [f"gene {number}" for number in range(12)]
    plots.ranking(layer, names, 5, axes)
    strengths = layer.to_dense().weight.detach().abs().sum(0)
    order = strengths.argsort(descending=True)[:5]
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], strengths[order], 1e-6)
    drawn = [label.get_text() for label in axes.get_yticklabels()]
    assert drawn == [names[place] for place in order]


def test_the_ranking_of_a_classifier(axes: Axes) -> None:
    estimators = pytest.importorskip("torch_truly_sparse.estimators")
    ranking = estimators.FeatureRanking(
        names=np.array(["b", "a", "c"]),
        columns=np.array([1, 0, 2]),
        importance=np.array([0.6, 0.3, 0.1]),
        frequency=np.ones(3),
        top=3,
    )
    plots.ranking(ranking, top=2, axes=axes)
    assert [bar.get_width() for bar in axes.patches] == [0.6, 0.3]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]
    with pytest.raises(TypeError, match="has names of its own"):
        plots.ranking(ranking, ["x"], axes=axes)


@both_twins
def test_a_recording_has_the_start_and_each_evolution(layer_type: type[Any]) -> None:
    model, recording = recorded(layer_type)
    assert list(recording.layers) == ["0", "2"]
    for name, layer in recording.layers.items():
        assert layer.steps == [0, 3, 5, 7][: len(layer.steps)]
        assert len(layer.steps) >= 3
        assert layer.turnover[0] == layer.returned[0] == 0
        np.testing.assert_allclose(layer.turnover[1:], 0.3, atol=0.05)
        now = dense_mask(getattr(model, name))
        assert layer.density[-1] == pytest.approx(now.double().mean().item())
        assert torch.equal(layer.fan_in[-1], torch.bincount(now.sum(1)))
        assert torch.equal(layer.fan_out[-1], torch.bincount(now.sum(0)))


def test_a_recording_that_was_stopped_stays_as_it_is() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SET(model, optimizer, every=None, generator=seeded())
    recording = plots.Recording(evolution)
    evolution.step()
    recording.stop()
    evolution.step()
    assert len(recording.layers["0"].steps) == 2


def test_a_recording_may_start_in_the_middle_of_a_training() -> None:
    model = network()
    optimizer = sgd(model)
    evolution = tts.SET(model, optimizer, every=4, generator=seeded())
    for seed in range(2):
        train_step(model, optimizer, seed)
    recording = plots.Recording(evolution)
    for seed in range(4):
        train_step(model, optimizer, seed)
    assert recording.layers["0"].steps == [2, evolution.history[0].step]


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_degrees_over_time(side: str, axes: Axes) -> None:
    model, recording = recorded()
    plots.degrees_over_time(recording, "2", side, axes)
    median, largest = axes.lines
    degrees = dense_mask(model[2]).sum(0 if side == "inputs" else 1)
    assert largest.get_ydata()[-1] == degrees.max()
    assert median.get_ydata()[-1] == degrees.median()
    assert list(median.get_xdata()) == recording.layers["2"].steps


def test_quantiles_are_those_of_the_units() -> None:
    degrees = torch.randint(0, 30, (101,), generator=seeded())
    shares = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
    wanted = np.quantile(degrees.numpy(), shares, method="inverted_cdf").tolist()
    assert quantiles(torch.bincount(degrees), shares) == wanted
    assert quantiles(torch.bincount(torch.empty(0, dtype=torch.long)), (0.5,)) == [0]


def test_loss_and_turnover(axes: Axes) -> None:
    _, recording = recorded()
    losses = [float(number) for number in range(7)]
    plots.loss_and_turnover(recording, losses, axes=axes)
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5, 6, 7]
    assert list(line.get_ydata()) == losses
    (right,) = (other for other in axes.figure.axes if other is not axes)
    first = right.lines[0]
    wanted = [100 * share for share in recording.layers["0"].turnover[1:]]
    np.testing.assert_allclose(first.get_ydata(), wanted)
    plots.loss_and_turnover(recording, losses[:2], [4, 7], axes)
    assert list(axes.lines[1].get_xdata()) == [4, 7]


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (lambda m, r: plots.degrees(m), TypeError, "draw one layer of a model"),
        (lambda m, r: plots.densities(m[0].bias), TypeError, "`model` must be an nn.Module"),
        (lambda m, r: plots.densities(nn.ReLU()), ValueError, "no linear layer"),
        (lambda m, r: plots.input_image(m[0], (5, 5)), ValueError, "fill the 12 inputs"),
        (lambda m, r: plots.input_image(m[0], (0, 5)), ValueError, "fill the 12 inputs"),
        (lambda m, r: plots.input_image(m[0], 12), TypeError, "two integers"),
        (lambda m, r: plots.input_image(m[0], (3.0, 4)), TypeError, "two integers"),
        (lambda m, r: plots.ranking(m), TypeError, "`source` must be a FeatureRanking"),
        (lambda m, r: plots.ranking(m[0], ["a"]), ValueError, "must name the 12 inputs"),
        (lambda m, r: plots.ranking(m[0], top=0), ValueError, "`top` must be at least 1"),
        (lambda m, r: plots.Recording(m), TypeError, "`evolution` must be a SparseEvolution"),
        (lambda m, r: plots.degrees_over_time(m), TypeError, "must be a Recording"),
        (lambda m, r: plots.degrees_over_time(r, "1"), ValueError, r"one of \['0', '2'\], got '1'"),
        (lambda m, r: plots.degrees_over_time(r, side="in"), ValueError, "`side` must be"),
        (lambda m, r: plots.loss_and_turnover(m, []), TypeError, "must be a Recording"),
        (lambda m, r: plots.loss_and_turnover(r, [1.0], [1, 2]), ValueError, "the 1 losses, got 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    draw: Any, error: type[Exception], message: str, axes: Axes
) -> None:
    model, recording = recorded()
    with pytest.raises(error, match=message):
        draw(model, recording)


def test_the_current_axes_are_taken_where_none_are_given(axes: Axes) -> None:
    plt.sca(axes)
    assert plots.degrees(network()[0]) is axes
