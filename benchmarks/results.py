"""The results of a benchmark: rows, the JSON file, and the numbers computed from the rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .shapes import Shape
from .timing import Timing

SCHEMA = "torch_truly_sparse.benchmarks/1"

FORWARD = "forward"
BOTH = "forward+backward"
BACKWARD = "backward"
GRAD_INPUT = "dX"
GRAD_WEIGHT = "dW"
# Floating-point operations for each weight and sample: each product multiplies and adds.
FLOPS = {FORWARD: 2, GRAD_INPUT: 2, GRAD_WEIGHT: 2, BACKWARD: 4, BOTH: 6}
# Bytes that must cross for each weight, in float32 with 4-byte indices: its value and column are
# read; a gradient needs no value, and is written; the backward pass reads once for both products.
WEIGHT_BYTES = {FORWARD: 8, GRAD_INPUT: 8, GRAD_WEIGHT: 8, BACKWARD: 12, BOTH: 20}

# The subject of the rows of the probes, which run in the same rounds as the layers of a shape; and
# the work of one call of each probe: operations, or bytes read.
MACHINE = "machine"
PROBE_WORK = {"sgemm": 2 * 1024 * 1024 * 128, "DRAM": 2**28}

OK, MISSING, WRONG, FAILED, TOO_LARGE = "ok", "missing", "wrong", "failed", "too large"


@dataclass(frozen=True)
class Row:
    """One measurement, or the reason why there is none.

    Attributes:
        shape: the layer.
        subject: the competitor, or the probe of the machine.
        measure: which part of the work; a key of `FLOPS`, or the name of a probe.
        threads: the number of threads.
        status: `ok`, `missing`, `wrong`, `failed` or `too large`.
        detail: the reason, or a remark.
        timing: the timing, or None if there is none.
    """

    shape: Shape
    subject: str
    measure: str
    threads: int
    status: str = OK
    detail: str = ""
    timing: Timing | None = None

    @property
    def gflops(self) -> float:
        """Useful GFLOP/s: only operations on nonzeros count, even where more were computed."""
        work = FLOPS[self.measure] * self.shape.nnz * self.shape.batch
        return work / self._seconds / 1e9

    @property
    def weight_bandwidth(self) -> float:
        """The GB/s at which the weights alone were moved."""
        return WEIGHT_BYTES[self.measure] * self.shape.nnz / self._seconds / 1e9

    @property
    def _seconds(self) -> float:
        if self.timing is None:
            raise ValueError(f"{self.subject} was not timed on {self.shape}: {self.status}")
        return self.timing.median


@dataclass(frozen=True)
class Results:
    """All rows of one run of one benchmark, and where and how they were measured."""

    benchmark: str
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    rows: Sequence[Row]

    def write(self, path: Path) -> Path:
        """Write JSON; folders are made. Returns `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {
            "schema": SCHEMA,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "benchmark": self.benchmark,
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
        }
        rows = ({**asdict(row), "timing": row.timing and row.timing.to_json()} for row in self.rows)
        lines = ",\n  ".join(map(json.dumps, rows))  # a line a row: short, and good to compare
        text = json.dumps(head, indent=1).removesuffix("\n}")
        path.write_text(f'{text},\n "rows": [\n  {lines}\n ]\n}}\n')
        return path

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote.

        Raises:
            ValueError: the file is not of this schema.
        """
        try:
            data = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise ValueError(f"{path} is not a file of the schema {SCHEMA}")
        return cls(
            data["benchmark"],
            data["settings"],
            data["machine"],
            data["versions"],
            [_read_row(row) for row in data["rows"]],
        )

    @property
    def shapes(self) -> list[Shape]:
        """The layers, each once, in the order of the rows."""
        return list(dict.fromkeys(row.shape for row in self.rows))

    def find(
        self, shape: Shape, subject: str, measure: str, threads: int | None = None
    ) -> Row | None:
        """Look up a row; `threads` may be left out where one number of threads was measured."""
        for row in self.rows:
            if (row.shape, row.subject, row.measure) == (shape, subject, measure) and threads in (
                None,
                row.threads,
            ):
                return row
        return None

    def seconds(
        self, shape: Shape, subject: str, measure: str, threads: int | None = None
    ) -> float | None:
        """Look up the median seconds of a row; None if the row has no timing."""
        row = self.find(shape, subject, measure, threads)
        return row.timing.median if row is not None and row.timing is not None else None

    @property
    def thread_counts(self) -> list[int]:
        """The numbers of threads that were measured, rising."""
        return sorted({row.threads for row in self.rows})

    def speedup(self, shape: Shape, subject: str, threads: int) -> float | None:
        """Return the time of a step with 1 thread over that with `threads`; None if unknown."""
        one = self.seconds(shape, subject, BOTH, 1)
        many = self.seconds(shape, subject, BOTH, threads)
        return one / many if one is not None and many is not None else None

    def machine_rate(self, shape: Shape, probe: str) -> float | None:
        """Return the speed of a probe in the rounds of a shape, in GFLOP/s or GB/s."""
        seconds = self.seconds(shape, MACHINE, probe)
        return PROBE_WORK[probe] / seconds / 1e9 if seconds is not None else None


@dataclass(frozen=True)
class Ratio:
    """The time of `subject` divided by ours."""

    shape: Shape
    subject: str
    value: float


def ratios(
    results: Results, shapes: Iterable[Shape], subjects: Sequence[str], ours: str, measure: str
) -> list[Ratio]:
    """Compare us with the fastest of some competitors, shape by shape.

    Returns:
        One ratio for each shape on which we and at least one of `subjects` were timed.
    """
    found = []
    for shape in shapes:
        own = results.seconds(shape, ours, measure)
        times = {name: results.seconds(shape, name, measure) for name in subjects}
        known = {name: seconds for name, seconds in times.items() if seconds is not None}
        if own is not None and known:
            fastest = min(known, key=known.__getitem__)
            found.append(Ratio(shape, fastest, known[fastest] / own))
    return found


def geometric_mean(values: Sequence[float]) -> float:
    """Return the n-th root of the product, the mean that suits ratios.

    Raises:
        ValueError: there are no values, or not all are positive.
    """
    if not values or min(values) <= 0:
        raise ValueError(f"`values` must be positive and at least one, got {list(values)}")
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _read_row(data: Mapping[str, Any]) -> Row:
    timing = Timing.from_json(data["timing"]) if data["timing"] is not None else None
    return Row(**{**data, "shape": Shape(**data["shape"]), "timing": timing})
