"""Prints results files as Markdown: `python -m benchmarks.report FILE...`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from . import evolution, layer, products, scaling, small_layer, threads
from .results import Results

BENCHMARKS = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (evolution, layer, products, scaling, small_layer, threads)
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print results files as Markdown, and draw the picture of one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="PICTURE", help="draw the one file, too")
    options = parser.parse_args(arguments)
    if options.plot is not None and len(options.files) > 1:
        parser.error("--plot draws one file")
    for path in options.files:
        try:
            results = Results.read(path)
        except (OSError, ValueError) as error:
            parser.error(str(error))
        if results.benchmark not in BENCHMARKS:
            parser.error(f"{path} is of the unknown benchmark {results.benchmark!r}")
        benchmark = BENCHMARKS[results.benchmark]
        print(benchmark.report(results))
        if options.plot is not None:
            if benchmark.draw is None:
                parser.error(f"there is no picture of {benchmark.name}")
            try:
                benchmark.draw(results, options.plot)
            except ValueError as error:
                parser.error(str(error))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
