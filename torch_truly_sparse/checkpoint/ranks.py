"""What the ranks of a data-parallel model do together when it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import nn

from .._wrappers import data_parallel_wrapper


def process_group_of(model: nn.Module | None) -> Any:
    """Return the process group that trains a model, or None."""
    wrapper = None if model is None else data_parallel_wrapper(model)
    return None if wrapper is None else wrapper.process_group


def gather(own: dict[str, Any], group: Any) -> tuple[int, list[dict[str, Any]]]:
    """Return the number of this rank, and on rank 0 what each rank has."""
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
