"""Try hostile inputs and sudden deaths on the library, and count what came of them.

    python -m benchmarks.reliability states --count 10000    # damaged checkpoints and states
    python -m benchmarks.reliability contents --count 10000  # whole checkpoints, other contents
    python -m benchmarks.reliability tables --count 50000    # data files, damaged or whole
    python -m benchmarks.reliability arguments --count 50000 # of operators and constructors
    python -m benchmarks.reliability kills --count 300       # training killed at random moments
    python -m benchmarks.reliability soak --count 100000     # steps of one run, 10,000 evolutions

A trial is made by its seed: `--first SEED --count 1` does one of them again. With `--output FILE`
the counts are written as JSON. The exit status is 1 if a trial ended as it should not.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from benchmarks.command_line import whole_number

from . import arguments, contents, kills, soak, states, tables
from .children import Outcome, run_trials

CAMPAIGNS: dict[str, Callable[[range], Outcome]] = {
    "states": lambda seeds: run_trials(states.trial, seeds),
    "contents": lambda seeds: run_trials(contents.trial, seeds),
    "tables": lambda seeds: run_trials(tables.trial, seeds),
    "arguments": lambda seeds: run_trials(arguments.trial, seeds),
    "kills": kills.run,
    "soak": soak.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a campaign; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--count", type=whole_number, default=1000, metavar="N", help="of trials")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="of the first trial")
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the counts, as JSON")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.count)
    outcome = CAMPAIGNS[options.campaign](seeds)
    for line, count in sorted(outcome.counts.items()):
        print(f"{count:>8,}  {line}")
    for seed, line in outcome.bad[:50]:
        print(f"seed {seed}: {line}")
    if options.output is not None:
        report = {
            "campaign": options.campaign,
            "seeds": [seeds.start, seeds.stop],
            "counts": dict(sorted(outcome.counts.items())),
            "bad": outcome.bad,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 1 if outcome.bad else 0


if __name__ == "__main__":
    sys.exit(main())
