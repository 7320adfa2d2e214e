"""Chooses the label among the facts about samples that a file holds beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from microarray_study.errors import InputError
from microarray_study.readers.raw_table import is_missing


def choose_fact(
    path: Path, facts: Mapping[str, Sequence[str]], asked: str | None, option: str
) -> str:
    """Return the name of the fact that is the label: the one asked for, or the only one.

    A fact can be the label if it has at least two values and some value occurs twice.

    Raises:
        InputError: no fact has this name, or several may be the label; the text lists them.
    """
    if asked is not None:
        found = [name for name in facts if name.lower() == asked.strip().lower()]
        if len(found) == 1:
            return found[0]
        raise InputError(
            f"{path}: {option} {asked!r} names no fact about samples; there are {_listed(facts)}"
        )
    fit = {name: values for name, values in facts.items() if _can_label(values)}
    if len(fit) == 1:
        return next(iter(fit))
    about = (
        "several facts about the samples may be the label"
        if fit
        else ("no fact about the samples can be the label")
    )
    raise InputError(f"{path}: {about}; {option} NAME chooses one: {_listed(fit or facts)}")


def _can_label(values: Sequence[str]) -> bool:
    known = [value for value in values if not is_missing(value)]
    return 1 < len(set(known)) <= len(known) / 2


def _listed(facts: Mapping[str, Sequence[str]], most: int = 12) -> str:
    """List facts with how many values each of them has, and an example."""
    listed = [
        f"{name!r} ({len(set(values))} values, such as {values[0]!r})"
        for name, values in list(facts.items())[:most]
        if values
    ]
    more = f", and {len(facts) - most} more" if len(facts) > most else ""
    return (", ".join(listed) or "there are none") + more
