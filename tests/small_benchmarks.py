"""What the tests of benchmarks/ share: small problems, and a schedule that takes no time."""

from benchmarks.results import Results, Row
from benchmarks.shapes import Shape
from benchmarks.timing import Schedule

SMALL = Shape(37, 53, 6, 0.2)
# The sizes of which SparseProp takes another path: multiples of 16.
ALIGNED = Shape(64, 48, 16, 0.1)
INSTANT = Schedule(
    rounds=1, round_seconds=1e-9, settle_seconds=0, longest_seconds=1, fewest_rounds=1, warm_up=1
)
ABOUT = {
    "processor": "abacus",
    "cores": 1,
    "instruction_set": "scalar",
    "load": 0.0,
    "ceilings": {"sgemm": 100.0, "L1": 400.0, "DRAM": 30.0},
}


def results_of(benchmark: str, rows: list[Row]) -> Results:
    return Results(benchmark, {"threads": 1}, ABOUT, {"torch": "2"}, rows)
