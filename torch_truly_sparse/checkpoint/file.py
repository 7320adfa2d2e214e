"""One checkpoint file: written whole or not at all, and checked to the last byte when read."""

from __future__ import annotations

import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

FORMAT = "torch_truly_sparse checkpoint 1"
_PARTS = {"format", "model", "optimizer", "ranks"}
_PARTS_OF_RANK = {"evolution", "extra", "random"}


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, checking every byte of it; nothing in it is executed.

    Returns:
        `"model"` and `"optimizer"`, state dicts or None, and `"ranks"`: for each rank that saved it
        a dictionary of `"evolution"`, `"extra"` and `"random"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not complete, or `save` did not write it.

    Cost: reads the file twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged!r} in it is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError("tts.checkpoint.save did not write it")
        if set(content) != _PARTS:
            raise ValueError(f"it lacks {', '.join(sorted(_PARTS - set(content)))}")
        _check_kinds(content)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch and zipfile raise of all kinds
        raise ValueError(f"{str(path)!r} is no complete checkpoint: {error}") from error
    return content


def _check_kinds(content: dict[str, Any]) -> None:
    """Check what holds the saved states; the states are checked by who takes them."""
    ranks = content["ranks"]
    if not isinstance(ranks, list) or not ranks:
        raise ValueError(f"`ranks` in it must be a list of dictionaries, got {_kind(ranks)}")
    for rank in ranks:
        if not isinstance(rank, dict) or not rank.keys() >= _PARTS_OF_RANK:
            raise ValueError(
                f"each of `ranks` in it must be a dictionary of {', '.join(sorted(_PARTS_OF_RANK))}"
            )
        if not isinstance(rank["extra"], dict):
            raise ValueError(f"`extra` in it must be a dictionary, got {_kind(rank['extra'])}")


def _kind(value: Any) -> str:
    return "an empty list" if value == [] else type(value).__name__


def write(content: dict[str, Any], path: Path) -> None:
    """Write a file beside its place and rename it, or leave the earlier file as it is."""
    number, name = tempfile.mkstemp(".partial", f".{path.name}.", path.parent)
    partial = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        unreadable = torch.serialization.get_unsafe_globals_in_checkpoint(partial)
        if unreadable:
            raise TypeError(
                f"a checkpoint cannot hold objects of {', '.join(sorted(unreadable))}: give "
                "numbers, strings, tensors, lists and dictionaries, or an object with `state_dict`"
            )
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name, too, must outlast a cut of power
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def is_ours(path: Path) -> bool:
    """Say whether `save` wrote a file; its tensors are not read."""
    try:
        content = torch.load(path, map_location="meta", mmap=True, weights_only=True)
    except Exception:
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT
