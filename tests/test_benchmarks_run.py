"""Every program of benchmarks/ runs, and says so where something is wrong."""

import json
from dataclasses import replace
from importlib import metadata

import pytest
import torch
from small_benchmarks import ALIGNED, INSTANT, SMALL, results_of

import torch_truly_sparse as tts
from benchmarks import (
    both,
    evolution,
    inference,
    layer,
    products,
    small_layer,
    small_network,
    threads,
)
from benchmarks import report as report_module
from benchmarks.command_line import main
from benchmarks.competitors import OURS
from benchmarks.results import BOTH, OK, SCHEMA, WRONG, Results, Row
from benchmarks.shapes import Shape
from benchmarks.timing import Timing
from torch_truly_sparse import ops
from torch_truly_sparse.rules import GradientRegrow

pytestmark = pytest.mark.usefixtures("_one_thread_in_benchmarks")


def test_the_layer_benchmark_runs_writes_and_is_read_back(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    output, plot = tmp_path / "new" / "layer.json", tmp_path / "layer.png"
    arguments = ["--quick", "--threads", "1", "--competitors", f"{OURS},dense"]
    arguments += ["--shapes", "48x32x8@0.1,48x32x8@0.5", "--seed", "5"]
    status = main(layer.BENCHMARK, [*arguments, "--output", str(output), "--plot", str(plot)])
    printed = capsys.readouterr().out
    assert status == 0
    record = json.loads(output.read_text())
    assert record["schema"] == SCHEMA
    assert record["settings"]["seed"] == 5
    assert record["settings"]["shapes"] == ["48x32x8@0.1", "48x32x8@0.5"]
    assert record["versions"]["torch"] == metadata.version("torch")
    assert all(row["timing"]["median"] > 0 for row in record["rows"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    results = Results.read(output)
    assert len(results.rows) == 2 * (2 * 2 + 2)
    assert layer.report(results) + "\n" == printed
    plot.unlink()
    assert report_module.main([str(output), "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == printed
    assert replace(results, rows=[]).shapes == []


def test_the_program_fails_where_we_are_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(layer, "time_shape", lambda shape, *_: [Row(shape, OURS, BOTH, 1, WRONG)])
    arguments = ["--quick", "--threads", "1", "--output", str(tmp_path / "x.json")]
    assert main(layer.BENCHMARK, arguments) == 1


def test_the_products_run():
    rows = products.time_shape(SMALL, INSTANT, 0, {})
    assert [row.measure for row in rows] == ["forward", "dX", "dW", "backward"]
    assert all(row.status == OK and row.timing is not None for row in rows)
    assert "The products" in products.report(results_of("products", rows))


def test_the_threads_run(tmp_path):
    rows = threads.time_shape(SMALL, [1, 2], INSTANT, 0)
    assert {(row.subject, row.threads) for row in rows} == {
        (name, count) for name in (OURS, "dense") for count in (1, 2)
    }
    assert "1 / 2" in threads.report(results_of("threads", rows))
    assert [threads.numbers_of_threads(most) for most in (1, 2, 3, 8)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
    ]


def test_tiny_layers_run():
    rows = small_layer.time_shape(Shape(8, 8, 1, 0.5), INSTANT, 0)
    assert len(rows) == 4
    assert "8x8x1@0.5" in small_layer.report(results_of("small_layer", rows))


@pytest.mark.skipif(tts.active_isa() not in ("avx2", "avx512"), reason="needs AVX2")
def test_a_benchmark_runs_with_the_instruction_set_that_its_file_names(tmp_path, capfd):
    assert both.main(["small_layer", "--isa", "avx2", "--quick", "--folder", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "small_layer_avx2.json").read_text())
    assert record["machine"]["instruction_set"] == "avx2"
    assert "64x64x1@0.1" in (tmp_path / "small_layer_avx2.md").read_text()
    with pytest.raises(SystemExit):
        both.main(["nothing"])
    assert "no benchmark 'nothing'" in capfd.readouterr().err


def test_a_failed_run_is_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(both.ENVIRONMENTS, "avx2", {"TORCH_TRULY_SPARSE_ISA": "none"})
    assert both.main(["small_layer", "--isa", "avx2", "--quick", "--folder", str(tmp_path)]) == 1


def test_a_small_network_runs():
    rows = small_network.time_network((40, 20, 10), 2, INSTANT, 0)
    found = {(row.subject, row.measure) for row in rows if row.status == OK}
    both = {(name, part) for name in (OURS, "masked dense") for part in small_network.PARTS}
    assert both <= found
    assert ("bare operators", "+ optimizer") in found
    assert "Batch 2" in small_network.report(results_of("small_network", rows))


def test_the_bare_operators_compute_a_step_of_the_network():
    torch.manual_seed(0)
    net = small_network.network((40, 20, 10))
    bare, x = small_network.Bare(net, 3), torch.randn(3, 40)
    net(x).sum().backward()
    torch.testing.assert_close(bare.forward(x)[-1], net(x))
    parameters = [  # values or weight, then bias; the layers hold them in another order
        module._parameters[name]
        for module in net
        for name in ("values", "weight", "bias")
        if name in module._parameters
    ]
    for gradient, parameter in zip(bare.backward(x), parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    bare.step(x)
    for array, parameter in zip(bare.arrays, parameters, strict=True):
        torch.testing.assert_close(array, parameter.detach() - 1e-6 * parameter.grad)


def test_inference_runs():
    shape = Shape(40, 30, 2, 0.3)
    rows = inference.time_shape(shape, INSTANT, 0)
    assert {row.subject for row in rows} >= {OURS, "packed int8", "dense", "torch CSR"}
    assert all(row.status == OK and int(row.detail) > 0 for row in rows)
    text = inference.report(results_of("inference", rows))
    assert "| 40x30x2@0.3 " in text
    (packed,) = (row for row in rows if row.subject == "packed bfloat16")
    pointers_and_bias = 8 * (30 + 1 + 2) + 4 * 30
    assert int(packed.detail) == 4 * shape.nnz + pointers_and_bias
    assert f"{int(packed.detail) / shape.nnz:.2f}" in text


def test_inference_that_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setattr(inference, "_ROUNDED", 0.0)
    rows = inference.time_shape(Shape(40, 30, 2, 0.3), INSTANT, 0)
    wrong = {row.subject for row in rows if row.status != OK}
    assert {"packed bfloat16", "packed int8", "dense bfloat16"} <= wrong
    assert all("is off by" in row.detail for row in rows if row.status != OK)


def test_evolutions_run():
    rows = evolution.time_random(SMALL, INSTANT, 0) + evolution.time_gradient(ALIGNED, INSTANT, 0)
    assert [(row.subject, row.measure) for row in rows] == [
        (OURS, "evolution"),
        (OURS, "step"),
        (OURS, "step+evolution"),
        ("dense", "dW"),
    ]
    assert all(row.status == OK and row.timing is not None for row in rows)
    text = evolution.report(results_of("evolution", rows))
    assert f"| {SMALL} " in text
    assert f"| {ALIGNED} " in text


def test_an_evolution_is_by_hand_what_the_report_says():
    def row(subject: str, measure: str, seconds: float) -> Row:
        return Row(ALIGNED, subject, measure, 1, OK, timing=Timing((seconds,), 1))

    rows = [row(OURS, "step", 0.003), row(OURS, "step+evolution", 0.033)]
    rows.append(row("dense", "dW", 0.02))
    last = evolution.report(results_of("evolution", rows)).strip().splitlines()[-1]
    assert [cell.strip() for cell in last.split("|")[-3:-1]] == ["30.0", "1.50"]


@pytest.mark.parametrize("what", ["weights", "choice"])
def test_an_evolution_that_is_wrong_is_reported_and_not_timed(what, monkeypatch):
    if what == "weights":
        survey = evolution.Training.survey

        def spoiled(training):
            positions, weights, momentum = survey(training)
            return positions, weights, momentum + len(training.evolution.history)

        monkeypatch.setattr(evolution.Training, "survey", spoiled)
        rows = evolution.time_random(SMALL, INSTANT, 0)
        assert "connections changed" in rows[0].detail
    else:

        def lowest(self, view, survivors, count, *, generator):
            return ops.empty_positions(survivors, torch.arange(count))

        monkeypatch.setattr(GradientRegrow, "select", lowest)
        rows = evolution.time_gradient(ALIGNED, INSTANT, 0)
        assert "larger gradient" in rows[0].detail
    assert all(row.status == WRONG and row.timing is None for row in rows)
    assert "wrong" in evolution.report(results_of("evolution", rows))
