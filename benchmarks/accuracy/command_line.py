"""Measure how accurate the estimators are on wide data, beside the classic ways.

    python -m benchmarks.accuracy small --data FOLDER      # run what is missing, write the page
    python -m benchmarks.accuracy small --report           # only write the page and the pictures

Tables: small (sixteen sets of few samples), packaged (thirteen of published packages, made by
`python -m benchmarks.accuracy.packaged`), larger (madelon, COIL20, PCMAC), ranking (a linear SVM on
the first genes of each ranking), ablation (each part of the recipe), density (static, SET, RigL and
dense). A run is never done twice; press Ctrl-C at any time, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.command_line import whole_number

from . import data_sets, pictures
from .campaign import run_all
from .report import Scores, page, ranked
from .store import Store
from .tables import TABLES, Table

OUTPUT = Path("results/accuracy")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a table; returns the exit status."""
    options = parse(arguments)
    table = TABLES[options.table]
    torch.set_num_threads(options.threads)
    try:
        store = Store(options.output / f"{table.name}.jsonl")
        if not options.report:
            run(table, store, options)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on from here.", file=sys.stderr)
        return 130
    if not len(store):
        print(f"error: {store.path} has no runs yet; leave out --report", file=sys.stderr)
        return 2
    write(table, store, options.output)
    return 0


def run(table: Table, store: Store, options: argparse.Namespace) -> None:
    """Do what is missing of a table: first the methods that are run on all splits."""
    names = options.sets or list(table.data_sets)
    strange = [name for name in names if name not in table.data_sets]
    if strange:
        raise ValueError(f"`--sets` must be among {', '.join(table.data_sets)}, got {strange[0]!r}")
    methods = [table.method(name) for name in options.methods or table.methods]
    count = table.splits if options.splits is None else options.splits
    for most in sorted({min(count, table.fewer.get(m.name, count)) for m in methods}, reverse=True):
        chosen = [m for m in methods if min(count, table.fewer.get(m.name, count)) == most]
        loaded = (data_sets.load(options.data, name) for name in names)
        run_all(loaded, chosen, most, store, print)


def write(table: Table, store: Store, folder: Path) -> None:
    """Write the page and the pictures of a table."""
    command = f"python -m benchmarks.accuracy {table.name} --data FOLDER"
    path = folder / f"{table.name}.md"
    text = page(table, store, command)
    scores = Scores.of(table, store)
    if table.name in ("small", "larger"):
        drawn = [pictures.draw_accuracy_against_seconds(scores, folder / f"{table.name}.png")]
        if table.name == "small" and len(ranked(scores)[0]) > 1:
            drawn.append(pictures.draw_ranks(scores, folder / f"{table.name}_ranks.png"))
        text += "\n## Pictures\n\n" + "\n\n".join(f"![{p.stem}]({p.name})" for p in drawn) + "\n"
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with status 2 and one clear line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("table", choices=TABLES, help="which table")
    folder = os.environ.get("TTS_DATA_DIR")
    add(
        "--data",
        type=Path,
        default=Path(folder) if folder else Path("data"),
        metavar="FOLDER",
        help="with the .mat files (default: $TTS_DATA_DIR, or data)",
    )
    add("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"(default: {OUTPUT})")
    add("--sets", type=_names, metavar="LIST", help="data sets, separated by commas")
    add("--methods", type=_names, metavar="LIST", help="methods, separated by semicolons")
    add("--splits", type=whole_number, metavar="N", help="the first N of the 25 splits")
    add("--threads", type=whole_number, default=1, help="of each fit (default: 1)")
    add("--report", action="store_true", help="only write page and pictures, from earlier runs")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    separator = ";" if ";" in text else ","
    return [name.strip() for name in text.split(separator) if name.strip()]
