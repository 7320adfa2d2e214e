"""The tables of `benchmarks.layer`."""

from __future__ import annotations

from collections.abc import Sequence

from .competitors import COMPETITORS, OURS, SPARSE_PEERS, Dense
from .markdown import absences, digits, header, milliseconds, table
from .results import BOTH, FORWARD, Ratio, Results, geometric_mean, ratios
from .shapes import DENSE, PEERS, Shape


def report(results: Results) -> str:
    """Make Markdown: a table for each measure, and the geometric means of the ratios."""
    parts = ["# One layer\n\n" + header(results)]
    for measure, title in ((BOTH, "Forward and backward"), (FORWARD, "Forward alone")):
        parts.append(f"## {title}\n\n" + _times(results, measure))
        parts.append(_summary(results, measure))
    missing = absences(results.rows)
    if missing:
        parts.append("Not timed:\n\n" + "\n".join(missing))
    return "\n\n".join(parts) + "\n"


def _times(results: Results, measure: str) -> str:
    names = [kind.name for kind in COMPETITORS]
    names = [name for name in names if any(row.subject == name for row in results.rows)]
    head = ["in x out x batch @ density, ms", *names]
    head += ["peer / ours", "dense / ours", "GFLOP/s", "of sgemm", "of DRAM"]
    rows = []
    for shape in results.shapes:
        found = [results.find(shape, name, measure) for name in names]
        times = [milliseconds(row.timing) if row is not None else "-" for row in found]
        peer = _one_ratio(results, shape, SPARSE_PEERS, measure)
        dense = _one_ratio(results, shape, (Dense.name,), measure)
        rows.append([str(shape), *times, peer, dense, *_rates(results, shape, measure)])
    return table(head, rows)


def _one_ratio(results: Results, shape: Shape, subjects: Sequence[str], measure: str) -> str:
    found = ratios(results, [shape], subjects, OURS, measure)
    return digits(found[0].value) if found else "-"


def _rates(results: Results, shape: Shape, measure: str) -> list[str]:
    """Our GFLOP/s, its share of sgemm's, and the weights' share of the memory's bandwidth."""
    row = results.find(shape, OURS, measure)
    sgemm, dram = (results.machine_rate(shape, probe) for probe in ("sgemm", "DRAM"))
    if row is None or row.timing is None or sgemm is None or dram is None:
        return ["-"] * 3
    return [
        digits(row.gflops),
        f"{row.gflops / sgemm:.0%}",
        f"{row.weight_bandwidth / dram:.0%}",
    ]


def _summary(results: Results, measure: str) -> str:
    """Geometric means, each over the shapes of one comparison that were timed."""
    lines = ["Time of a competitor / ours, geometric mean and lowest:", ""]
    comparisons = [
        ("fastest sparse library", SPARSE_PEERS, PEERS),
        *((name, (name,), PEERS) for name in SPARSE_PEERS),
        (Dense.name, (Dense.name,), DENSE),
    ]
    for title, subjects, of in comparisons:
        timed = set(results.shapes)
        shapes = [shape for shape in of if shape in timed] or results.shapes
        found = ratios(results, shapes, subjects, OURS, measure)
        if found:
            lines.append(f"- {title}: {_mean_and_lowest(found)}")
    return "\n".join(lines)


def _mean_and_lowest(found: Sequence[Ratio]) -> str:
    lowest = min(found, key=lambda ratio: ratio.value)
    mean = digits(geometric_mean([ratio.value for ratio in found]))
    return (
        f"{mean} over {len(found)} shapes; lowest {digits(lowest.value)} "
        f"on {lowest.shape} ({lowest.subject})"
    )
