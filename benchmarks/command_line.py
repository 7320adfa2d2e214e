"""The command line that all benchmarks share: options, the run, and the results file."""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from . import machine
from .competitors import COMPETITORS, OURS, Competitor
from .results import MISSING, OK, Results, Row
from .shapes import GROUPS, Shape, parse_shapes
from .timing import QUICK, Schedule

# Above this load other programs keep the machine busy, and timings are rough.
_QUIET_LOAD = 0.3


@dataclass(frozen=True)
class Benchmark:
    """One benchmark: `python -m benchmarks.<name>`.

    Attributes:
        name: the name of the module and of the output file.
        description: the first lines of `--help`.
        run: takes the measurements.
        report: turns results into Markdown.
        draw: draws a picture of results; None where there is no such picture.
        add_arguments: adds the options that only this benchmark has.
    """

    name: str
    description: str
    run: Callable[[argparse.Namespace, Schedule], list[Row]]
    report: Callable[[Results], str]
    draw: Callable[[Results, Path], Path] | None = None
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark from the command line.

    Returns:
        The exit status: 1 if our own results were not right or a picture could not be drawn.
    """
    options = parse(benchmark, arguments)
    schedule = QUICK if options.quick else Schedule()
    if options.rounds is not None:
        schedule = replace(schedule, rounds=options.rounds)
    machine.set_threads(options.threads)
    about = machine.describe()
    if about["load"] is not None and about["load"] > _QUIET_LOAD:
        tell(f"note: the load is {about['load']:.1f}; timings on a busy machine are rough")
    about["ceilings"] = machine.ceilings(schedule)
    rows = benchmark.run(options, schedule)
    settings = {name: _plain(value) for name, value in vars(options).items()}
    settings["schedule"] = asdict(schedule)
    results = Results(benchmark.name, settings, about, versions(), rows)
    print(benchmark.report(results))
    tell(f"wrote {results.write(options.output)}")
    if options.plot is not None and benchmark.draw is not None:
        try:
            tell(f"wrote {benchmark.draw(results, options.plot)}")
        except (ImportError, ValueError) as error:
            tell(f"no picture: {error}")
            return 1
    return int(any(row.subject == OURS and row.status != OK for row in rows))


def parse(benchmark: Benchmark, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with status 2 and one clear line."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}", description=benchmark.description
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small layers, few rounds: only shows that it runs")
    add("--output", type=Path, metavar="FILE", help="JSON (default: results/<benchmark>.json)")
    if benchmark.draw is not None:
        add("--plot", type=Path, metavar="FILE", help="draw a picture too (needs matplotlib)")
    cores = machine.available_cores()
    add(
        "--threads",
        type=whole_number,
        default=cores,
        help=f"how many (default: all cores, {cores} here)",
    )
    add(
        "--rounds",
        type=whole_number,
        help=f"how often a task is timed (default: {Schedule().rounds})",
    )
    add("--seed", type=int, default=0, help="for topologies, weights and batches (default: 0)")
    benchmark.add_arguments(parser)
    options = parser.parse_args(arguments)
    options.plot = getattr(options, "plot", None)
    if options.output is None:
        quick = "-quick" if options.quick else ""
        options.output = Path("results") / f"{benchmark.name}{quick}.json"
    return options


def add_shapes(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the option `--shapes`; `default` says which shapes are measured without the option."""
    parser.add_argument(
        "--shapes",
        type=parse_shapes,
        metavar="LIST",
        help=f"groups ({', '.join(GROUPS)}) and single shapes such as 512x256x64@0.1, separated "
        f"by commas (default: {default})",
    )


def one_by_one(shapes: Sequence[Shape]) -> Iterator[Shape]:
    """Yield the shapes, and print the number of each and how many there are."""
    for number, shape in enumerate(shapes, 1):
        tell(f"[{number}/{len(shapes)}] {shape}")
        yield shape


def versions() -> dict[str, str]:
    """Return the versions of all libraries compared, and the revision of this source tree."""
    found = {"python": platform.python_version(), "revision": _revision()}
    for competitor in COMPETITORS:
        try:
            competitor.load()
            found[competitor.distribution] = competitor.version()
        except ImportError:
            found[competitor.distribution] = MISSING
    return found


def tell(text: str) -> None:
    """Print progress to standard error, so that standard output holds the report alone."""
    print(text, file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    """Make an option fit for JSON."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, type) and issubclass(value, Competitor):
        return value.name
    return str(value) if isinstance(value, Path | Shape) else value


def whole_number(text: str) -> int:
    """Read a whole number of at least 1, an option of the command line."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return value


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        run = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()
