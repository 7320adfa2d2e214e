"""Checkpoint files: written whole or not at all, read whole or not at all."""

from __future__ import annotations

import copy
import operator
import os
import re
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, SupportsIndex

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

_FORMAT = "torch_truly_sparse checkpoint 1"
_PARTS = {"format", "model", "optimizer", "ranks"}


def save(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    evolution: Any = None,
    keep: int | None = None,
    **extra: Any,
) -> Path:
    """Write all that a run needs to go on, to a file that is whole whenever it is there.

    The file is written under another name in the same folder, forced to disk, and renamed: a crash,
    a full disk or a cut of power leaves the earlier file as it was. torch's random state is saved,
    too.

    A model in `DistributedDataParallel` is saved by all its ranks together: each calls this with
    the same path, rank 0 writes, and none returns before the file is on disk. It holds the weights
    of rank 0, and of each rank its random state, what its evolution has captured, and its `extra`.
    Any other model is saved by the process that calls. A compiled model, wrapped or not, is saved
    as the one inside.

    Args:
        path: the file. Its folder must exist.
        model: what holds the weights and topologies; of a wrapped one, the module inside is saved.
        optimizer: its state.
        evolution: a `SparseEvolution`, or anything with `state_dict` and `load_state_dict`.
        keep: keep only so many of the files that are named like this one but for the last number in
            the name (`epoch_7.pt`, `epoch_8.pt`), the highest numbers; None keeps all. Files that
            are no checkpoints are left alone.
        extra: numbers, strings, tensors, and lists and dictionaries of them; or objects with
            `state_dict` (a learning rate schedule, a `GradScaler`); or a `torch.Generator`.

    Returns:
        The path.

    Raises:
        TypeError: something could not be read again with `weights_only=True`; no file is written.
        ValueError: `keep` is below 1, or the name holds no number to keep by.
        OSError: the file cannot be written.
        RuntimeError: rank 0 could not write; on the other ranks.

    Cost: the size of the file, once; what `model.state_dict()` costs in memory.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> model = nn.Linear(3, 2)
        >>> for epoch in range(4):
        ...     path = save(folder / f"epoch_{epoch}.pt", model=model, keep=2, epoch=epoch)
        >>> sorted(path.name for path in folder.iterdir())
        ['epoch_2.pt', 'epoch_3.pt']
        >>> resume(newest(folder / "epoch_*.pt"), model=model)
        {'epoch': 3}
    """
    path = Path(path)
    if keep is not None:
        _check_keep(keep, path)
    group = _group(model)
    own = {
        "evolution": None if evolution is None else evolution.state_dict(),
        "extra": {name: _state(value) for name, value in extra.items()},
        "random": torch.get_rng_state(),
    }
    rank, ranks = _gather(own, group)
    error: Exception | None = None
    if rank == 0:
        content = {
            "format": _FORMAT,
            "model": None if model is None else _inside(model).state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "ranks": ranks,
        }
        try:
            _write(content, path)
            if keep is not None:
                _remove_older(path, keep)
        except Exception as raised:
            error = raised
    _agree(error, group, path)
    return path


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, checking every byte of it; nothing in it is executed.

    Returns:
        `"model"` and `"optimizer"`, state dicts or None, and `"ranks"`: for each rank that saved it
        a dictionary of `"evolution"`, `"extra"` and `"random"`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not complete, or not one that `save` wrote.

    Cost: reads the file twice.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged!r} in it is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ValueError("tts.checkpoint.save did not write it")
        if set(content) != _PARTS:
            raise ValueError(f"it lacks {', '.join(sorted(_PARTS - set(content)))}")
    except FileNotFoundError:
        raise
    except Exception as error:  # torch and zipfile raise of all kinds
        raise ValueError(f"{str(path)!r} is no complete checkpoint: {error}") from error
    return content


def resume(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    evolution: Any = None,
    **extra: Any,
) -> dict[str, Any]:
    """Go on from a checkpoint: load all that was saved into the objects of a fresh run.

    A run that goes on so equals one that never stopped, bit for bit. torch's random state is set,
    too. A model in `DistributedDataParallel` is resumed by all its ranks, each of which reads the
    file.

    Args:
        path: what `save` wrote.
        model: takes the saved model's place; so do the others.
        optimizer: made after the model, with the same parameter groups.
        evolution: made with the same settings.
        extra: the objects with `load_state_dict`, and the generators, that were given to `save`.

    Returns:
        What else was given to `save`: numbers, strings, tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no complete checkpoint, it was saved without one of the things asked for,
            or by another number of ranks.
        TypeError, ValueError, KeyError, RuntimeError: the saved state does not fit; what `save`
            would save is then as it was before.

    Cost: what the file holds, and a copy of what is replaced, in memory.
    """
    content = load(path)
    group = _group(model)
    size = 1 if group is None else dist.get_world_size(group)
    if len(content["ranks"]) != size:
        raise ValueError(
            f"{str(path)!r} was saved by {len(content['ranks'])} ranks, and this is a run of "
            f"{size}: run as many, or take the weights alone from "
            "tts.checkpoint.load(path)['model']"
        )
    own = content["ranks"][0 if group is None else dist.get_rank(group)]
    saved = own["extra"]
    wanted: list[tuple[str, Any, Any]] = []
    if model is not None:
        wanted.append(("model", _inside(model), content["model"]))
    if optimizer is not None:
        wanted.append(("optimizer", optimizer, content["optimizer"]))
    if evolution is not None:
        wanted.append(("evolution", evolution, own["evolution"]))
    wanted += [(name, value, saved.get(name)) for name, value in extra.items()]
    for name, _, state in wanted:
        if state is None:
            raise ValueError(f"{str(path)!r} was saved without `{name}`")
    _load_all([(part, state) for _, part, state in wanted])
    torch.set_rng_state(own["random"])
    return {name: value for name, value in saved.items() if name not in extra}


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


def _write(content: dict[str, Any], path: Path) -> None:
    """Put a file in place at once, or leave what is there."""
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


def _load_all(parts: list[tuple[Any, Any]]) -> None:
    """Load states into objects; where one does not fit, put all back."""
    before = [(part, copy.deepcopy(_state(part))) for part, _ in parts]
    try:
        for part, state in parts:
            _load_state(part, state)
    except BaseException:
        for part, state in before:
            _load_state(part, state)
        raise


def _state(part: Any) -> Any:
    """What is saved of an object."""
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if hasattr(part, "state_dict") else part


def _load_state(part: Any, state: Any) -> None:
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif hasattr(part, "load_state_dict"):
        part.load_state_dict(state)
    else:
        raise TypeError(
            "only an object with `load_state_dict` or a torch.Generator can take a saved state, "
            f"got {type(part).__name__}; what is neither is returned"
        )


# Files that are named alike


def _numbers(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _check_keep(keep: int, path: Path) -> None:
    if isinstance(keep, bool) or not isinstance(keep, SupportsIndex):
        raise TypeError(f"`keep` must be an int or None, got {type(keep).__name__}")
    if operator.index(keep) < 1:
        raise ValueError(f"`keep` must be at least 1, got {keep}")
    if not _numbers(path):
        raise ValueError(f"`keep` needs a number in the name of the file, got {path.name!r}")


def _remove_older(path: Path, keep: int) -> None:
    """Remove complete checkpoints named alike, but for those of the highest numbers."""
    found = re.fullmatch(r"(.*?)\d+(\D*)", path.name, re.DOTALL)
    assert found is not None  # checked before
    alike = re.compile(re.escape(found[1]) + r"(\d+)" + re.escape(found[2]))
    numbered = [
        (int(match[1]), other)
        for other in path.parent.iterdir()
        if (match := alike.fullmatch(other.name)) and _is_ours(other)
    ]
    for _, other in sorted(numbered)[:-keep]:
        other.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    """Whether a file says that `save` wrote it; its tensors are not read."""
    try:
        content = torch.load(path, map_location="meta", mmap=True, weights_only=True)
    except Exception:
        return False
    return isinstance(content, dict) and content.get("format") == _FORMAT


# Ranks


def _inside(model: nn.Module) -> nn.Module:
    model = _uncompiled(model)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return _uncompiled(model.module)
    return model


def _uncompiled(model: nn.Module) -> nn.Module:
    """Take off what `torch.compile` puts around a module."""
    while "_orig_mod" in model._modules:
        model = model.get_submodule("_orig_mod")
    return model


def _group(model: nn.Module | None) -> Any:
    """The process group that trains a model, or None."""
    wrapper = None if model is None else _uncompiled(model)
    if isinstance(wrapper, nn.parallel.DistributedDataParallel):
        return wrapper.process_group
    return None


def _gather(own: dict[str, Any], group: Any) -> tuple[int, list[dict[str, Any]]]:
    """Number this rank, and collect on rank 0 what all have."""
    if group is None:
        return 0, [own]
    rank = dist.get_rank(group)
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(own, everyone if rank == 0 else None, group=group, group_dst=0)
    return rank, everyone


def _agree(error: Exception | None, group: Any, path: Path) -> None:
    """Wait until rank 0 has written, and raise on every rank where it could not."""
    reason = [None if error is None else str(error)]
    if group is not None:
        dist.broadcast_object_list(reason, group=group, group_src=0)
    if error is not None:
        raise error
    if reason[0] is not None:
        raise RuntimeError(f"rank 0 could not save {str(path)!r}: {reason[0]}")
