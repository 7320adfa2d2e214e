"""The command line: what may be given, and what it means for the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from microarray_study.command_line import number, whole

from million_neurons_study.settings import OPTIMIZERS, SIZES, Settings


def parse(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with status 2 and one clear line."""
    default = Settings()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE", help=".mat, .npz or .csv; none: generated")
    add("--label", metavar="NAME", help="column of a .csv with the labels (default: the last)")
    size = parser.add_argument_group("size of the network")
    add = size.add_argument
    add("--size", choices=SIZES, help="a named size; other options change it")
    add("--hidden", type=whole(1), help=f"units of a hidden layer (default: {default.hidden:,})")
    add("--hidden-layers", type=whole(1), help=f"(default: {default.hidden_layers})")
    add("--inputs", type=whole(1), help=f"of generated samples (default: {default.inputs:,})")
    add("--epsilon", type=number(0), help=f"Erdos-Renyi density (default: {default.epsilon:g})")
    training = parser.add_argument_group("training")
    add = training.add_argument
    add("--epochs", type=whole(1), help=f"(default: {default.epochs})")
    add("--lr", type=number(0), help="learning rate (default: 0.01, less above 3,000 units)")
    add("--fraction", type=number(0, 1), help=f"replaced an epoch (default: {default.fraction:g})")
    add(
        "--optimizer",
        choices=OPTIMIZERS,
        help="tts updates weights within the backward pass, torch after it (default: tts)",
    )
    add("--seed", type=whole(0), help=f"(default: {default.seed})")
    add("--threads", type=whole(1), help="(default: as torch chooses)")
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("--json", type=Path, metavar="PATH", help="write all figures to this file")
    add("--markdown", nargs="+", type=Path, metavar="JSON", help="only print results as a table")
    options = parser.parse_args(arguments)
    if options.file is not None and options.inputs is not None:
        parser.error("argument --inputs: a FILE brings its own number of inputs")
    return options


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the default settings with the named size, changed by what else is given."""
    given = (
        *("hidden", "hidden_layers", "inputs", "epsilon"),
        *("epochs", "fraction", "optimizer", "seed"),
    )
    said = {name: getattr(options, name) for name in given if getattr(options, name) is not None}
    if options.lr is not None:
        said["learning_rate"] = options.lr
    return replace(Settings(), **(SIZES.get(options.size, {}) | said))
