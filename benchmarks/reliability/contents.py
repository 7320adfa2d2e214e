"""Checkpoint files that are whole but hold something else than what was saved.

The file is read without a complaint; what is in it does not fit, as when it was edited, made by
another program, or by another version of this one. `resume` must refuse it with a reason and
nothing changed, or load it and go on with layers that compute what their matrices say.
"""

from __future__ import annotations

import copy
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_truly_sparse.checkpoint import resume, save

from .states import Run, problem, same

STEPS = 5  # of the saved run; the first evolution is after the third


def trial(seed: int) -> str:
    """Damage one or two entries of a checkpoint, write it again, and resume from it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        regrow = rng.choice(("random", "momentum"))  # the second saves what passes captured
        save(path, **Run(seed % 50, STEPS, regrow).parts, epoch=3, schedule=_schedule())
        content = torch.load(path, weights_only=True)
        damage = "; ".join(_damage(content, rng) for _ in range(rng.choice((1, 1, 2))))
        torch.save(content, path)
        fresh, schedule = Run(rng.randrange(50), rng.choice((0, 4)), regrow), _schedule()
        before = [*fresh.content(), schedule.state_dict(), torch.get_rng_state()]
        try:
            resume(path, **fresh.parts, schedule=schedule)
        except ValueError as error:
            if not same(before, [*fresh.content(), schedule.state_dict(), torch.get_rng_state()]):
                return f"WRONG: a refused checkpoint has changed the run: {damage}: {error}"
            return "refused"
    wrong = problem(fresh.model)
    if wrong:
        return f"WRONG: loaded: {damage}: {wrong}"
    try:
        fresh.train(4)
    except Exception:  # of any kind: torch's optimizers do not check what is loaded into them
        wrong = problem(fresh.model)
        return f"WRONG: trained: {damage}: {wrong}" if wrong else "loaded, raises when it trains"
    wrong = problem(fresh.model)
    return f"WRONG: trained: {damage}: {wrong}" if wrong else "loaded, trains on"


def _schedule() -> torch.optim.lr_scheduler.LRScheduler:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    return torch.optim.lr_scheduler.StepLR(optimizer, 3)


# Damages


def _damage(content: dict[str, Any], rng: random.Random) -> str:
    """Change one entry somewhere in nested dictionaries and lists; returns what was done."""
    holder: Any = content
    way: list[str] = []
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = rng.choice(keys)
        way.append(str(key))
        entry = holder[key]
        if isinstance(entry, dict | list | tuple) and entry and rng.random() < 0.85:
            holder[key] = list(entry) if isinstance(entry, tuple) else entry
            holder = holder[key]
            continue
        kind = rng.choice(sorted(KINDS))
        if kind == "gone":
            del holder[key]
        else:
            holder[key] = KINDS[kind](entry, rng)
        return f"{'.'.join(way)} {kind}"


def _other_kind(entry: Any, rng: random.Random) -> Any:
    others: tuple[Any, ...] = (
        None,
        "text",
        7,
        -1,
        2.5,
        [],
        {},
        [1, 2],
        {"a": 1},
        True,
        torch.ones(3),
    )
    return rng.choice(others)


def _other_numbers(entry: Any, rng: random.Random) -> Any:
    numbers = (0, -1, 1, 2**40, float("nan"), float("inf"), -(2**63), 0.5)
    if isinstance(entry, Tensor) and entry.numel():
        damaged = entry.clone().flatten()
        number = rng.choice(numbers)
        if damaged.dtype == torch.bool:
            number = 1
        elif not damaged.is_floating_point():
            kind = torch.iinfo(damaged.dtype)
            number = rng.choice((0, 1, 100, kind.min, kind.max))
        damaged[rng.randrange(damaged.numel())] = number
        return damaged.reshape(entry.shape)
    return rng.choice(numbers)


def _other_shape(entry: Any, rng: random.Random) -> Any:
    if isinstance(entry, Tensor):
        flat = entry.flatten()
        return rng.choice((flat[:-1], flat[None], flat[:0], torch.cat([flat, flat]), flat[:1]))
    if isinstance(entry, list):
        return rng.choice((entry[:-1], entry + entry, []))
    return [entry]


def _other_dtype(entry: Any, rng: random.Random) -> Any:
    if isinstance(entry, Tensor):
        kinds = (torch.float64, torch.float16, torch.int64, torch.int8, torch.bool, torch.complex64)
        return entry.to(rng.choice(kinds))
    return str(entry)


def _twice(entry: Any, rng: random.Random) -> Any:
    return [entry, copy.deepcopy(entry)]


KINDS: dict[str, Callable[[Any, random.Random], Any]] = {
    "gone": _twice,  # is deleted instead
    "of another kind": _other_kind,
    "with other numbers": _other_numbers,
    "of another shape": _other_shape,
    "of another dtype": _other_dtype,
    "twice": _twice,
}
