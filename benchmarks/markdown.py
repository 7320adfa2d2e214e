"""The parts of a report: Markdown that is readable in a console, too."""

from __future__ import annotations

from collections.abc import Sequence

from .results import MISSING, Results, Row
from .timing import Timing


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table; the first column is set left, the others right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        set_right = (cell.rjust(width) for cell, width in others)
        return " | ".join(["| " + first[0].ljust(first[1]), *set_right]) + " |"

    rule = "|".join(
        ["|" + "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    )
    return "\n".join([line(head), rule + "|", *map(line, rows)])


def header(results: Results) -> str:
    """Describe the machine, its limits and the versions."""
    machine, versions = results.machine, results.versions
    ceilings = dict(machine["ceilings"])
    sgemm = ceilings.pop("sgemm")
    bandwidths = ", ".join(f"{name} {value:.0f}" for name, value in ceilings.items())
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    threads = results.settings["threads"]
    busy = machine["load"]
    load = "" if busy is None else f" Load when it began: {busy:.1f}."
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['instruction_set']}; "
        f"{threads} thread{'s' if threads > 1 else ''}.{load}\n"
        f"Dense sgemm {sgemm:.0f} GFLOP/s. Reads in GB/s: {bandwidths}.\n"
        f"Versions: {found}."
    )


def milliseconds(timing: Timing | None) -> str:
    """Show a median in three digits and half the distance of the quartiles in per cent."""
    if timing is None:
        return "-"
    return f"{digits(timing.median * 1e3)} ±{timing.spread:.0%}"


def digits(value: float) -> str:
    """Show three significant digits, and all those before the point."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def absences(rows: Sequence[Row]) -> list[str]:
    """List the competitors that were not timed, with shapes and reason; each reason once."""
    reasons: dict[tuple[str, str, str], dict[str, None]] = {}
    for row in rows:
        if row.timing is None:
            shapes = reasons.setdefault((row.subject, row.status, row.detail), {})
            shapes[str(row.shape)] = None
    lines = []
    for (subject, status, detail), where in reasons.items():
        place = "" if status == MISSING else f" on {', '.join(where)}"
        lines.append(f"- {subject}: {status}{place} ({detail})")
    return lines
