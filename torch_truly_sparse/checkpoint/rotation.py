"""Rotation of checkpoint files whose names differ in a number: the newest, and those to remove."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from .._arguments import as_int
from .file import is_ours, load


def newest(pattern: str | os.PathLike[str]) -> Path | None:
    """Find the newest complete checkpoint: of the highest number in its name.

    Args:
        pattern: a path whose name may hold `*`: `"run/epoch_*.pt"`.

    Returns:
        Its path, or None where there is none. Damaged, foreign and hidden files are passed over;
        what a killed process has half written is hidden (`.epoch_7.pt.*.partial`).

    Cost: reads each candidate, from the highest number down, until one is complete.
    """
    pattern = Path(pattern)
    found = [path for path in pattern.parent.glob(pattern.name) if not path.name.startswith(".")]
    for path in sorted(found, key=_numbers, reverse=True):
        with suppress(ValueError, OSError):
            load(path)
            return path
    return None


def check_keep(keep: int, path: Path) -> None:
    """Raise what `save` says of `keep`."""
    as_int(keep, "keep", least=1)
    if not _numbers(path):
        raise ValueError(f"`keep` needs a number in the name of the file, got {path.name!r}")


def remove_older(path: Path, keep: int) -> None:
    """Remove the checkpoints whose names differ in the last number only, but for the highest."""
    found = re.fullmatch(r"(.*?)\d+(\D*)", path.name, re.DOTALL)
    assert found is not None  # checked before
    alike = re.compile(re.escape(found[1]) + r"(\d+)" + re.escape(found[2]))
    numbered = [
        (int(match[1]), other)
        for other in path.parent.iterdir()
        if (match := alike.fullmatch(other.name)) and is_ours(other)
    ]
    for _, other in sorted(numbered)[:-keep]:
        other.unlink(missing_ok=True)


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]
