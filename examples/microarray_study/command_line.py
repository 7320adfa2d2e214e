"""The command line: what may be given, and what it means for the settings."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from microarray_study.readers.reading import MISSING, UNLABELLED, Reading
from microarray_study.settings import DEFAULT_METHODS, METHODS, Settings

OUTPUT = Path("results/microarray")
SPLITS = 3
QUICK_EPOCHS = 3


def parse(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with status 2 and one clear line."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", nargs="*", type=Path, metavar="FILE", help="tables of samples; none: generated")
    add("--splits", type=whole(1), help=f"how many splits of 2/3 and 1/3 (default: {SPLITS})")
    add(
        "--methods",
        type=some_of(METHODS),
        default=list(DEFAULT_METHODS),
        metavar="LIST",
        help=f"which to compare: {','.join(METHODS)} (default: all but masked)",
    )
    _add_reading(parser)
    setting = parser.add_argument_group("settings of the networks, the same for every data set")
    add = setting.add_argument
    add("--epochs", type=whole(1), help=f"(default: {default.epochs})")
    add("--batch-size", type=whole(1), help=f"(default: {default.batch_size})")
    add("--lr", type=number(0), help=f"learning rate (default: {default.lr:g})")
    add("--epsilon", type=number(0), help=f"Erdos-Renyi density (default: {default.epsilon:g})")
    add("--fraction", type=number(0, 1), help=f"share replaced (default: {default.fraction:g})")
    sizes = ",".join(map(str, default.hidden))
    add("--hidden", type=layer_sizes, metavar="LIST", help=f"units a layer (default: {sizes})")
    add("--seed", type=whole(0), help=f"(default: {default.seed})")
    add("--threads", type=whole(1), help=f"of each training (default: {default.threads})")
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("--output", type=Path, metavar="FOLDER", help=f"for JSON and pictures (default: {OUTPUT})")
    add("--restart", action="store_true", help="do again what an earlier call has done")
    add("--quick", action="store_true", help=f"{QUICK_EPOCHS} epochs, 1 split: shows that it runs")
    add("--markdown", action="store_true", help="only print results files as Markdown tables")
    use = parser.add_argument_group("a classifier to keep, in place of the comparison")
    add = use.add_mutually_exclusive_group().add_argument
    add("--save", type=Path, metavar="MODEL", help="fit it on all samples of FILE and save it")
    add(
        "--predict",
        type=Path,
        metavar="MODEL",
        help="predict the samples of each FILE with a saved one; CSV files go to --output",
    )

    options = parser.parse_args(arguments)
    if options.save is not None and len(options.files) > 1:
        parser.error("--save fits one classifier on one file; call it once for each")
    if options.predict is not None and not options.files:
        parser.error("--predict needs files of new samples")
    if options.splits is None:
        options.splits = 1 if options.quick else SPLITS
    if options.output is None:
        options.output = OUTPUT.with_name("microarray-quick") if options.quick else OUTPUT
    return options


def _add_reading(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what the files hold",
        ".csv, .tsv, .txt, .gct, .arff, GEO series matrix (each also .gz), .mat, .npz, .parquet, "
        ".h5ad; see docs/data_files.md",
    )
    add = group.add_argument
    add(
        "--label",
        metavar="NAME",
        help="column, row, array or annotation that holds the labels; first and last name columns "
        "without a name (default: found by its name or content, else the last column)",
    )
    add("--transpose", action="store_true", help="the rows are genes, the columns are samples")
    add(
        "--missing",
        choices=MISSING,
        default=MISSING[0],
        help="what to do about missing values: refuse them, fill in the median of the feature, or "
        "leave out the features or the samples that have any (default: refuse)",
    )
    add(
        "--unlabelled",
        choices=UNLABELLED,
        default=UNLABELLED[0],
        help="what to do about samples without a label: refuse or drop them (default: refuse)",
    )
    add(
        "--characteristic",
        metavar="NAME",
        help="sample characteristic of a GEO series matrix that is the label, such as tissue",
    )
    add(
        "--ignore",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="NAMES",
        help="columns (with --transpose: rows) to leave out, separated by commas",
    )


def reading_of(options: argparse.Namespace) -> Reading:
    """Return what the command line says about the files."""
    return Reading(
        options.label,
        options.transpose,
        options.missing,
        options.unlabelled,
        options.characteristic,
        options.ignore,
    )


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the default settings, changed where the command line gives other values."""
    given = ("epochs", "batch_size", "lr", "epsilon", "fraction", "hidden", "seed", "threads")
    said = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    epochs = {"epochs": QUICK_EPOCHS, "classifier_epochs": QUICK_EPOCHS}
    quick = epochs if options.quick else {}
    return replace(Settings(), **(quick | said))


def whole(least: int) -> Callable[[str], int]:
    """Return a reader of whole numbers of at least `least`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number of at least {least}, got {text!r}"
            )
        return value

    return read


def number(above: float, most: float = math.inf) -> Callable[[str], float]:
    """Return a reader of finite numbers above `above` and up to `most`."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (above < value <= most and math.isfinite(value)):
            limit = "" if most == math.inf else f" and at most {most:g}"
            raise argparse.ArgumentTypeError(f"must be above {above:g}{limit}, got {text!r}")
        return value

    return read


def layer_sizes(text: str) -> tuple[int, ...]:
    """Read the units of the hidden layers, such as 1000,1000,1000."""
    return tuple(map(whole(1), text.split(",")))


def some_of(names: Collection[str]) -> Callable[[str], list[str]]:
    """Return a reader of lists such as sparse,dense; it gives the names in the order of `names`."""

    def read(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in names]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"must be among {', '.join(names)}, got {unknown[0]!r}"
            )
        return [name for name in names if name in chosen]

    return read
