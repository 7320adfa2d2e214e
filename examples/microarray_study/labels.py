"""From labels as people write them to class numbers: what is one class, and what is no label."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from microarray_study.errors import InputError

# Lower-case spellings of "there is no value", of pandas, R, WEKA and spreadsheets.
MISSING_WORDS = frozenset(
    ("", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "none", "null", "nat", "?")
)


@dataclass(frozen=True)
class Classes:
    """A class number, 0, 1, ..., for each sample, the names of the classes, and notes."""

    numbers: npt.NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...]


def one_label_a_sample(labels: npt.NDArray[Any], source: str) -> tuple[npt.NDArray[Any], list[str]]:
    """Return the labels as a vector; a one-hot table becomes the number of the column that is 1."""
    if labels.ndim == 2 and 1 in labels.shape:
        return labels.ravel(), []
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and labels.shape[1] > 1:
        ones = labels == 1
        if (ones | (labels == 0)).all() and (ones.sum(axis=1) == 1).all():
            note = f"labels are one-hot: class k is a 1 in column k of {labels.shape[1]}"
            return ones.argmax(axis=1) + 1, [note]
        raise InputError(
            f"{source}: Y must hold one label for each sample, got the shape {labels.shape}, "
            "and it is not one-hot either: a single 1 in each row, zeros elsewhere"
        )
    if labels.ndim != 1:
        raise InputError(
            f"{source}: Y must hold one label for each sample, got the shape {labels.shape}"
        )
    return labels, []


def missing_labels(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which labels are missing: empty, NaN, None, or a word such as `NA` or `?`."""
    if labels.dtype.kind == "f":
        absent: npt.NDArray[np.bool_] = np.isnan(labels)
        return absent
    if labels.dtype.kind in "OUS":
        return np.array([_text(label).lower() in MISSING_WORDS for label in labels], dtype=bool)
    return np.zeros(len(labels), dtype=bool)


def classes_of(labels: npt.NDArray[Any], source: str) -> Classes:
    """Return class numbers in the order of the sorted classes.

    Whole numbers are one class however they are spelled (`1`, `1.0`), and so are texts that differ
    only in spaces or in upper and lower case; a note says so.

    Raises:
        InputError: labels are missing, are no whole numbers or texts, or are fractions.
    """
    absent = missing_labels(labels)
    if absent.any():
        first = int(np.flatnonzero(absent)[0])
        word = _text(labels[first])
        raise InputError(
            f"{source}: {absent.sum()} of {len(labels)} labels are "
            f"{'empty' if word == '' else f'missing ({word!r})'}, the first in sample {first + 1}; "
            "--unlabelled drop leaves these samples out; a class that is really called so must be "
            "renamed"
        )
    if labels.dtype.kind == "O":
        labels = _unboxed(labels, source)
    if labels.dtype.kind == "f":
        odd = labels[~np.isfinite(labels) | (labels != np.floor(labels))]
        if len(odd):
            raise _fraction(str(odd[0]), len(odd), source)
        labels = labels.astype(np.int64)
    elif labels.dtype.kind not in "biuUS":
        raise InputError(
            f"{source}: labels must be whole numbers or text, got the type {labels.dtype}"
        )
    notes: list[str] = []
    if labels.dtype.kind in "US":
        labels, notes = _merged([_text(label, strip=False) for label in labels], source)
    values, numbers = np.unique(labels, return_inverse=True)
    return Classes(numbers.astype(np.int64), tuple(str(value) for value in values), tuple(notes))


def _merged(labels: list[str], source: str) -> tuple[npt.NDArray[Any], list[str]]:
    """Merge spellings of one class."""
    numbers = [_number(label) for label in labels]
    if all(number is not None for number in numbers):
        odd = [x for x in numbers if x is None or not np.isfinite(x) or x != np.floor(x)]
        if odd:
            raise _fraction(str(odd[0]), len(odd), source)
        whole = np.array([int(x) for x in numbers if x is not None])
        return whole, _merge_notes(labels, [str(number) for number in whole])
    plain = [_plain(label) for label in labels]
    counts = Counter(plain)
    spelling: dict[str, str] = {}
    for label, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        spelling.setdefault(label.casefold(), label)
    merged = [spelling[label.casefold()] for label in plain]
    return np.array(merged, dtype=np.str_), _merge_notes(labels, merged)


def _merge_notes(labels: list[str], merged: list[str]) -> list[str]:
    """Say which different spellings became one class."""
    spellings: dict[str, set[str]] = {}
    for label, name in zip(labels, merged, strict=True):
        spellings.setdefault(name, set()).add(label)
    return [
        f"labels {', '.join(map(repr, sorted(written)))} are one class, {name!r}"
        for name, written in sorted(spellings.items())
        if len(written) > 1
    ]


def _plain(label: str) -> str:
    """Remove spaces around and doubled spaces; write a whole number without a fraction."""
    text = " ".join(label.split())
    number = _number(text)
    if number is not None and np.isfinite(number) and number == np.floor(number):
        return str(int(number))
    return text


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _unboxed(labels: npt.NDArray[Any], source: str) -> npt.NDArray[Any]:
    """Return an array of objects as an array of texts or of numbers."""
    if all(isinstance(label, (str, bytes)) for label in labels):
        return np.array([_text(label, strip=False) for label in labels], dtype=np.str_)
    if all(isinstance(label, (int, float, np.number, np.bool_)) for label in labels):
        return np.array([label.item() if hasattr(label, "item") else label for label in labels])
    kinds = sorted({type(label).__name__ for label in labels})
    raise InputError(
        f"{source}: labels must be whole numbers or text, got the type object, which holds "
        f"{' and '.join(kinds)}; write all of them as texts or all as whole numbers"
    )


def _text(label: Any, strip: bool = True) -> str:
    text = label.decode("utf-8", "replace") if isinstance(label, bytes) else str(label)
    return text.strip() if strip else text


def _fraction(example: str, count: int, source: str) -> InputError:
    return InputError(
        f"{source}: labels must be whole numbers or text, got {example} ({count} such); this job "
        "is classification, not regression. --label NAME says where the labels are; if genes are "
        "in rows, --transpose says so"
    )
