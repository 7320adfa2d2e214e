"""The command line: what may be given, and what it means for the settings."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from microarray_study.command_line import number, some_of, whole
from microarray_study.errors import InputError

from drop_in_study.settings import FORMS, PRESETS, Settings

OUTPUT = Path("results/drop_in")
GIVEN = [
    "width",
    "feed_forward",
    "heads",
    "blocks",
    "context",
    "batch_size",
    "steps",
    "dense_lr",
    "sparse_lr",
    "feed_forward_density",
    "attention_density",
    "evolve_every",
    "seed",
    "threads",
]


def parse(description: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; a wrong value ends the program with status 2 and one clear line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="small", help="which settings (default: small)")
    add("--forms", type=some_of(FORMS), default=list(FORMS), help="which to train (dense,sparse)")
    setting = parser.add_argument_group("settings, the same for both forms unless they say sparse")
    add = setting.add_argument
    add("--width", type=whole(1), help="units of a character (d_model)")
    add("--feed-forward", type=whole(1), help="units of the feed-forward layers")
    add("--heads", type=whole(1), help="attention heads; they divide the width")
    add("--blocks", type=whole(1))
    add("--context", type=whole(1), help="characters in a sequence")
    add("--batch-size", type=whole(1), help="sequences a step")
    add("--steps", type=whole(1))
    add("--dense-lr", type=number(0), help="peak learning rate of AdamW, dense form")
    add("--sparse-lr", type=number(0), help="peak learning rate of AdamW, sparse form")
    add("--feed-forward-density", type=number(0, 1))
    add("--attention-density", type=number(0, 1))
    add("--evolve-every", type=whole(0), help="steps between evolutions of sparse layers; 0: none")
    add("--seed", type=whole(0))
    add("--threads", type=whole(1))
    output = parser.add_argument_group("output")
    add = output.add_argument
    add("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"(default: {OUTPUT})")
    add("--restart", action="store_true", help="do again what an earlier call has done")
    return parser.parse_args(arguments)


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the preset, changed where the command line gives other values."""
    said = {name: getattr(options, name) for name in GIVEN if getattr(options, name) is not None}
    settings = replace(PRESETS[options.preset], **said)
    if settings.width % (2 * settings.heads):
        raise InputError(
            "--heads must divide --width into even parts, got "
            f"{settings.heads} and {settings.width}"
        )
    return settings
