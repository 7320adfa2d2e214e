"""Saving a run with all that it needs to go on, of every rank, and resuming it."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from .._wrappers import unwrapped
from .file import FORMAT, load, write
from .ranks import agree, gather, process_group_of
from .rotation import check_keep, remove_older


def save(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    evolution: Any = None,
    keep: int | None = None,
    **extra: Any,
) -> Path:
    """Write all that a run needs to go on into one file, which is complete whenever it exists.

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
        >>> from tempfile import mkdtemp
        >>> from torch_truly_sparse.checkpoint import newest
        >>> folder = Path(mkdtemp())
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
        check_keep(keep, path)
    group = process_group_of(model)
    own = {
        "evolution": None if evolution is None else evolution.state_dict(),
        "extra": {name: _state(value) for name, value in extra.items()},
        "random": torch.get_rng_state(),
    }
    rank, ranks = gather(own, group)
    error: Exception | None = None
    if rank == 0:
        content = {
            "format": FORMAT,
            "model": None if model is None else unwrapped(model).state_dict(),
            "optimizer": None if optimizer is None else optimizer.state_dict(),
            "ranks": ranks,
        }
        try:
            write(content, path)
            if keep is not None:
                remove_older(path, keep)
        except Exception as raised:
            error = raised
    agree(error, group, path)
    return path


def resume(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    optimizer: Optimizer | None = None,
    evolution: Any = None,
    **extra: Any,
) -> dict[str, Any]:
    """Go on from a checkpoint: load all that was saved into the objects of a fresh run.

    A resumed run equals one that never stopped, bit for bit. torch's random state is set, too. A
    model in `DistributedDataParallel` is resumed by all its ranks, each of which reads the file.

    Args:
        path: what `save` wrote.
        model: the module that gets the saved weights and topologies.
        optimizer: an optimizer of this model, with the same parameter groups as the saved one.
        evolution: an evolution of the two, with the same settings as the saved one.
        extra: the objects with `load_state_dict`, and the generators, that were given to `save`.

    Returns:
        What else was given to `save`: numbers, strings, tensors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no complete checkpoint, it was saved without one of the things asked for,
            or by another number of ranks.
        ValueError: a saved state does not fit; all objects, and torch's random state, are then put
            back into the state that they had.
        TypeError: something given takes no state.

    Cost: what the file holds, and a copy of what is replaced, in memory.
    """
    content = load(path)
    group = process_group_of(model)
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
        wanted.append(("model", unwrapped(model), content["model"]))
    if optimizer is not None:
        wanted.append(("optimizer", optimizer, content["optimizer"]))
    if evolution is not None:
        wanted.append(("evolution", evolution, own["evolution"]))
    wanted += [(name, value, saved.get(name)) for name, value in extra.items()]
    for name, _, state in wanted:
        if state is None:
            raise ValueError(f"{str(path)!r} was saved without `{name}`")
    _load_all([*wanted, ("random", torch.default_generator, own["random"])])
    return {name: value for name, value in saved.items() if name not in extra}


def _load_all(parts: list[tuple[str, Any, Any]]) -> None:
    """Load states into objects, given with their names; where one does not fit, put all back."""
    before = [(name, part, copy.deepcopy(_state(part))) for name, part, _ in parts]
    try:
        for each in parts:
            _load_state(*each)
    except BaseException:
        for each in before:
            _load_state(*each)
        raise


def _state(part: Any) -> Any:
    """Return what is saved of an object."""
    if isinstance(part, torch.Generator):
        return part.get_state()
    return part.state_dict() if hasattr(part, "state_dict") else part


def _load_state(name: str, part: Any, state: Any) -> None:
    if not isinstance(part, torch.Generator) and not hasattr(part, "load_state_dict"):
        raise TypeError(
            "only an object with `load_state_dict` or a torch.Generator can take a saved state, "
            f"got {type(part).__name__}; what is neither is returned"
        )
    try:
        if isinstance(part, torch.Generator):
            part.set_state(state)
        else:
            part.load_state_dict(state)
    except ValueError:
        raise  # it says what does not fit
    except Exception as error:  # what torch and others raise over a state of another form
        raise ValueError(f"the saved `{name}` does not fit: {error!r}") from error
