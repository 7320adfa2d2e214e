"""The records of benchmarks/, and the reports that are read from them."""

import json
from pathlib import Path

import pytest
from processes import run_python
from small_benchmarks import ABOUT

from benchmarks import report as report_module
from benchmarks.competitors import OURS, SPARSE_PEERS
from benchmarks.results import BOTH, FORWARD, SCHEMA, Results, geometric_mean, ratios
from benchmarks.shapes import PEERS, Shape

pytestmark = pytest.mark.usefixtures("_one_thread_in_benchmarks")


def by_hand(tmp_path: Path) -> Path:
    """A results file as somebody else might write it, with round numbers."""

    def row(shape: Shape, subject: str, milliseconds: float, work: str = BOTH) -> dict[str, object]:
        return {
            "shape": vars(shape),
            "subject": subject,
            "measure": work,
            "threads": 2,
            "status": "ok",
            "detail": "",
            "timing": {"seconds": [milliseconds / 1e3] * 3, "calls": 1},
        }

    first, second = PEERS[:2]
    rows = [row(first, OURS, 1), row(first, "SparseProp", 2), row(first, "SparseLab", 3)]
    rows += [row(second, OURS, 4), row(second, "SparseProp", 50), row(second, "SparseLab", 32)]
    rows += [row(shape, "machine", 2.68435456, "sgemm") for shape in (first, second)]
    rows += [row(shape, "machine", 10, "DRAM") for shape in (first, second)]
    rows.append({**row(first, "torch-sparse", 0), "status": "missing", "timing": None})
    path = tmp_path / "layer.json"
    record = {"schema": SCHEMA, "benchmark": "layer", "settings": {"threads": 2}}
    record |= {"machine": ABOUT, "versions": {"torch": "2"}, "rows": rows}
    path.write_text(json.dumps(record))
    return path


def test_geometric_means_of_a_file_made_by_hand(tmp_path, capsys):
    path = by_hand(tmp_path)
    results = Results.read(path)
    found = ratios(results, results.shapes, SPARSE_PEERS, OURS, BOTH)
    assert [(ratio.subject, ratio.value) for ratio in found] == [
        ("SparseProp", pytest.approx(2)),
        ("SparseLab", pytest.approx(8)),
    ]
    assert geometric_mean([ratio.value for ratio in found]) == pytest.approx(4)
    assert ratios(results, results.shapes, SPARSE_PEERS, OURS, FORWARD) == []
    assert report_module.main([str(path)]) == 0
    text = capsys.readouterr().out
    assert f"fastest sparse library: 4.00 over 2 shapes; lowest 2.00 on {PEERS[0]}" in text
    assert f"SparseProp: 5.00 over 2 shapes; lowest 2.00 on {PEERS[0]}" in text
    assert "- torch-sparse: missing" in text


def test_rates_count_the_nonzeros_only(tmp_path):
    results = Results.read(by_hand(tmp_path))
    shape = PEERS[0]
    row = results.find(shape, OURS, BOTH)
    assert row.gflops == pytest.approx(6 * shape.nnz * shape.batch / 1e-3 / 1e9)
    assert row.weight_bandwidth == pytest.approx(20 * shape.nnz / 1e-3 / 1e9)
    assert results.machine_rate(shape, "sgemm") == pytest.approx(100)
    assert results.machine_rate(shape, "DRAM") == pytest.approx(26.8435456)
    with pytest.raises(ValueError, match=r"torch-sparse was not timed on .*: missing"):
        _ = results.find(shape, "torch-sparse", BOTH).gflops


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": "another/1"}'])
def test_a_file_of_something_else_is_refused(text, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is not"):
        Results.read(path)
    with pytest.raises(SystemExit):
        report_module.main([str(path)])
    assert "x.json is not" in capsys.readouterr().err


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [-1.0]])
def test_a_geometric_mean_needs_positive_numbers(values):
    with pytest.raises(ValueError, match="must be positive"):
        geometric_mean(values)


def test_a_benchmark_is_a_program(tmp_path):
    path = by_hand(tmp_path)
    run = run_python("-m", "benchmarks.report", str(path), cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("# One layer")
