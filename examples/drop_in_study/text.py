"""Text that every Python brings along: the sources of its standard library."""

from __future__ import annotations

import hashlib
import random
import string
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from microarray_study.errors import InputError
from torch import Tensor

ALPHABET = string.printable[:-2]  # without vertical tab and form feed
OTHER = len(ALPHABET)  # what any other character becomes
VOCABULARY = len(ALPHABET) + 1
HELD_OUT_SHARE = 10  # one file in so many is held out
LEFT_OUT = {"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class Text:
    """Characters as numbers: those to train on, and those of other files to test with."""

    train: Tensor  # (characters,) uint8
    held_out: Tensor
    fingerprint: str


def read_standard_library(characters: int, seed: int) -> Text:
    """Read whole files in random order: one in ten is held out, the others train.

    Args:
        characters: how many to train on, at least; a tenth as many are held out.
        seed: of the order.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(
        path for path in folder.rglob("*.py") if not LEFT_OUT & set(path.relative_to(folder).parts)
    )
    random.Random(seed).shuffle(files)
    parts: tuple[list[str], list[str]] = ([], [])
    wanted = (characters, characters // HELD_OUT_SHARE)
    for number, path in enumerate(files):
        kind = 1 if number % HELD_OUT_SHARE == 0 else 0
        if sum(map(len, parts[kind])) < wanted[kind]:
            parts[kind].append(path.read_text(encoding="utf-8", errors="replace"))
    train, held_out = (encode("".join(part)) for part in parts)
    if min(train.numel(), held_out.numel()) < 10_000:
        raise InputError(
            f"{folder}: holds too little of the standard library's source "
            f"({train.numel() + held_out.numel()} characters)"
        )
    digest = hashlib.sha256(train.numpy().tobytes() + held_out.numpy().tobytes())
    return Text(train, held_out, digest.hexdigest()[:16])


def encode(text: str) -> Tensor:
    """Turn text into numbers below `VOCABULARY`."""
    codes = {letter: code for code, letter in enumerate(ALPHABET)}
    return torch.tensor([codes.get(letter, OTHER) for letter in text], dtype=torch.uint8)


class Sequences:
    """Batches of sequences and what follows them, drawn at random places of a text.

    Args:
        text: (characters,) numbers.
        context: length of a sequence.
        batch_size: sequences in a batch.
        seed: two of equal seed give equal batches.
    """

    def __init__(self, text: Tensor, context: int, batch_size: int, seed: int) -> None:
        self._text, self._context, self._batch_size = text, context, batch_size
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Draw a batch: (batch, context) characters, and for each the one that follows."""
        starts = torch.randint(
            len(self._text) - self._context, (self._batch_size, 1), generator=self._generator
        )
        windows = self._text[starts + torch.arange(self._context + 1)].long()
        return windows[:, :-1], windows[:, 1:]
