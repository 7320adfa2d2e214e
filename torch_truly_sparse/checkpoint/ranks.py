"""What the ranks of a data-parallel model do together when it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn


def inside_of(model: nn.Module) -> nn.Module:
    """The model that a data-parallel or compiling wrapper holds, or the model itself."""
    model = _uncompiled(model)
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return _uncompiled(model.module)
    return model


def process_group_of(model: nn.Module | None) -> Any:
    """The process group that trains a model, or None."""
    wrapper = None if model is None else _uncompiled(model)
    if isinstance(wrapper, nn.parallel.DistributedDataParallel):
        return wrapper.process_group
    return None


def _uncompiled(model: nn.Module) -> nn.Module:
    """Take off what `torch.compile` puts around a module."""
    while "_orig_mod" in model._modules:
        model = model.get_submodule("_orig_mod")
    return model


def gather(own: dict[str, Any], group: Any) -> tuple[int, list[dict[str, Any]]]:
    """Number this rank, and collect on rank 0 what all have."""
    if group is None:
        return 0, [own]
    rank = dist.get_rank(group)
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(own, everyone if rank == 0 else None, group=group, group_dst=0)
    return rank, everyone


def agree(error: Exception | None, group: Any, path: Path) -> None:
    """Wait until rank 0 has written, and raise on every rank where it could not."""
    reason = [None if error is None else str(error)]
    if group is not None:
        dist.broadcast_object_list(reason, group=group, group_src=0)
    if error is not None:
        raise error
    if reason[0] is not None:
        raise RuntimeError(f"rank 0 could not save {str(path)!r}: {reason[0]}")
