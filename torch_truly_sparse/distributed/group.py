"""The process group that a call works on."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from .._arguments import check_module
from .._wrappers import check_not_data_parallel


def check_group(process_group: dist.ProcessGroup | None) -> None:
    """Raise where the group does not exist, or this process is not a member.

    Raises:
        RuntimeError: torch has no distributed package, or it is not initialised.
        ValueError: this process is not a member.
    """
    if not dist.is_available():
        raise RuntimeError("this build of torch has no torch.distributed")
    if not dist.is_initialized():
        raise RuntimeError(
            "torch.distributed is not initialised: call "
            'torch.distributed.init_process_group("gloo") first'
        )
    if dist.get_rank(process_group) < 0:
        raise ValueError("`process_group` must be one that this process is a member of")


def check_unwrapped(model: Any) -> None:
    """Raise unless the argument is a module, and no part of it is in `DistributedDataParallel`.

    Raises:
        TypeError: it is something else.
    """
    check_not_data_parallel(
        check_module(model, "model"),
        "give the module inside (`model.module`), and prepare it before it is wrapped",
    )


def check_same_on_all(facts: list[str], process_group: dist.ProcessGroup | None, what: str) -> None:
    """Compare a list of facts between ranks.

    Raises:
        ValueError: two ranks have different facts; raised on every rank.
    """
    everyone: list[list[str]] = [[] for _ in range(dist.get_world_size(process_group))]
    dist.all_gather_object(everyone, facts, group=process_group)
    for rank, theirs in enumerate(everyone):
        if theirs != everyone[0]:
            first = [*everyone[0], *["nothing"] * len(theirs)]
            other = [*theirs, *["nothing"] * len(first)]
            ours, different = next((a, b) for a, b in zip(first, other, strict=False) if a != b)
            raise ValueError(
                f"{what} must be the same on all ranks: rank 0 has {ours}, rank {rank} has "
                f"{different}"
            )
