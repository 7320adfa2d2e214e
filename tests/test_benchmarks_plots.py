"""The pictures of benchmarks/, and the numbers that are read from their curves."""

import pytest
from small_benchmarks import INSTANT, SMALL, results_of

from benchmarks import growth, layer, scaling, threads
from benchmarks.competitors import TrulySparse
from benchmarks.shapes import Shape

pytestmark = pytest.mark.usefixtures("_one_thread_in_benchmarks")


def test_growth_is_fitted_and_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    sweep = growth.Sweep("batch", "16 x 16", [Shape(16, 16, batch, 0.5) for batch in (1, 2, 4)])
    rows = scaling.time_sweep(sweep, INSTANT, 0)
    results = results_of("scaling", rows)
    assert growth.sweeps_in(results) == [sweep]
    assert "Batch: 16 x 16" in scaling.report(results)
    assert plots.draw_scaling(results, tmp_path / "scaling.png").stat().st_size > 1000
    sizes = [1.0, 2.0, 5.0, 10.0]
    assert growth.exponent(sizes, [3 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    # A fixed cost bends the small end only.
    assert growth.large_half([1, 2, 100, 200], [9, 9, 100, 200]) == pytest.approx(1)


def test_the_break_even_is_where_the_curve_falls_to_one():
    pytest.importorskip("matplotlib")
    from benchmarks.plots import break_even

    assert break_even([0.1, 0.4], [2.0, 0.5]) == pytest.approx(0.2)
    assert break_even([0.1, 0.2, 0.4, 0.8], [8.0, 4.0, 1.0, 0.5]) == pytest.approx(0.4)
    assert break_even([0.1, 0.4], [3.0, 2.0]) is None
    assert break_even([0.1, 0.4], [0.5, 0.2]) is None


def test_a_picture_without_densities_is_refused(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    rows = layer.time_shape(SMALL, [TrulySparse], INSTANT, 0, {})
    with pytest.raises(ValueError, match="two or more densities"):
        plots.draw_density(results_of("layer", rows), tmp_path / "x.png")
    rows = threads.time_shape(SMALL, [1], INSTANT, 0)
    with pytest.raises(ValueError, match="more than 1 thread"):
        plots.draw_threads(results_of("threads", rows), tmp_path / "x.png")
