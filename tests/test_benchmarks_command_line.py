"""The command lines of benchmarks/, and the shapes that they are given."""

from pathlib import Path

import pytest

from benchmarks import layer
from benchmarks import report as report_module
from benchmarks.command_line import parse
from benchmarks.shapes import DENSE, GROUPS, PEERS, Shape, parse_shapes

pytestmark = pytest.mark.usefixtures("_one_thread_in_benchmarks")


def test_shapes_are_read_from_groups_and_from_text():
    assert parse_shapes("12x34x5@0.5") == [Shape(12, 34, 5, 0.5)]
    assert parse_shapes("peers,dense") == list(dict.fromkeys([*PEERS, *DENSE]))
    assert [parse_shapes(str(shape)) for shape in PEERS] == [[shape] for shape in PEERS]
    assert GROUPS["streaming"][0].nnz == 12_000_000
    assert len(set(PEERS)) == 15


@pytest.mark.parametrize("text", ["", "pears", "1x2@0.1", "1x2x3@0", "1x2x3@1.5", "0x2x3@1"])
def test_what_is_no_shape_ends_the_program_with_one_clear_line(text, capsys):
    with pytest.raises(SystemExit):
        parse(layer.BENCHMARK, ["--shapes", text])
    assert "--shapes" in capsys.readouterr().err


@pytest.mark.parametrize("name", report_module.BENCHMARKS)
def test_every_benchmark_has_a_command_line(name, capsys):
    benchmark = report_module.BENCHMARKS[name]
    assert benchmark.name == name
    assert parse(benchmark, ["--quick"]).output == Path(f"results/{name}-quick.json")
    assert parse(benchmark, []).output == Path(f"results/{name}.json")
    with pytest.raises(SystemExit):
        parse(benchmark, ["--threads", "0"])
    assert "--threads" in capsys.readouterr().err
