"""The processes that train one network together: how they decide on one topology."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ..nn import SparseLayer
from .gradient import Reduce

Result = TypeVar("Result")


class Alone:
    """One process, which decides by itself; `Ranks` has the same methods for several."""

    @property
    def reduce(self) -> Reduce | None:
        """The function that averages a block of gradients over ranks; None for one process."""
        return None

    def share_generator(self, generator: torch.Generator | None) -> torch.Generator | None:
        """Return the generator as it is."""
        return generator

    def decide(self, answer: Callable[[], Tensor]) -> Tensor:
        """Return the answer of a rule."""
        return answer()

    def all_succeed(self, action: Callable[[], Result]) -> Result:
        """Do something that may fail, before anything is changed."""
        return action()

    def check_same(self, layers: Mapping[str, SparseLayer]) -> None:
        """Do nothing: there is no other rank to compare with."""

    def check_ready(self, ready: Mapping[str, bool]) -> None:
        """Do nothing: there is no other rank to compare with."""


class Ranks(Alone):
    """The processes of a group, with one topology at all times.

    Every rank asks its rules at the same time, with equal generators, because the rules may read
    sums over ranks. The answer of rank 0 counts, and the other ranks receive it. So ranks that
    round differently (another CPU, another instruction set) still agree. An evolution sends about
    5 bytes a connection, less than the gradients of one step.

    Args:
        group: the process group; None is the default one.
        device: the device of the model, on which tensors must lie to be sent.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self._group = group
        self._device = device
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    @property
    def reduce(self) -> Reduce:
        """The function that averages a block of gradients over ranks, as DDP averages `grad`."""
        return self._average

    def _average(self, block: Tensor) -> Tensor:
        """Average a block in place."""
        dist.all_reduce(block, group=self._group)
        return block.div_(self.size)

    def share_generator(self, generator: torch.Generator | None) -> torch.Generator | None:
        """Return a generator in the state of that of rank 0.

        Where a rank other than 0 has no generator of its own, torch's default generator is left
        alone, because it may be meant to differ between ranks (dropout).
        """
        source = torch.default_generator if generator is None else generator
        state = source.get_state()
        shared = self._from_first(state)
        if self.rank == 0:
            return generator
        if generator is None:
            generator = torch.Generator()
        generator.set_state(shared)
        return generator

    def decide(self, answer: Callable[[], Tensor]) -> Tensor:
        """Ask a rule on every rank, and return the answer of rank 0.

        Raises:
            RuntimeError: the rule raised an error on another rank. A rank on which it raised raises
                that error.
        """
        return self._from_first(self.all_succeed(answer))

    def all_succeed(self, action: Callable[[], Result]) -> Result:
        """Do something that may fail on every rank, and raise on all ranks where it fails on one.

        Raises:
            RuntimeError: it raised an error on another rank. A rank on which it raised raises that
                error.
        """
        error: Exception | None = None
        results: list[Result] = []
        try:
            results.append(action())
        except Exception as raised:
            error = raised
        failed = [rank for rank, (bad,) in enumerate(self._gather([error is not None])) if bad]
        if error is not None:
            raise error
        if failed:
            raise RuntimeError(
                f"the evolution failed on rank {failed[0]}, whose error says why; nothing was "
                "changed on any rank"
            )
        return results[0]

    def check_same(self, layers: Mapping[str, SparseLayer]) -> None:
        """Compare the topologies of all ranks by their hashes.

        Raises:
            RuntimeError: a layer's topology differs between ranks; raised on every rank.

        Cost: O(nnz) time, 8 bytes a layer and rank sent.
        """
        hashes = self._gather([layer.topology.fingerprint() for layer in layers.values()])
        for number, name in enumerate(layers):
            others = [r for r in range(self.size) if hashes[r][number] != hashes[0][number]]
            if others:
                raise RuntimeError(
                    f"layer {name!r} has another topology on rank {others[0]} than on rank 0: "
                    "something changed it on one rank alone (a loaded state, an evolution outside "
                    "the group); load one checkpoint on all ranks, or call "
                    "tts.distributed.prepare again before wrapping"
                )

    def check_ready(self, ready: Mapping[str, bool]) -> None:
        """Compare which layers captured a backward pass, before ranks wait for one another.

        Raises:
            RuntimeError: a layer captured one on some ranks only; raised on every rank.
        """
        table = self._gather(list(ready.values()))
        for number, name in enumerate(ready):
            lacking = [rank for rank in range(self.size) if not table[rank][number]]
            if 0 < len(lacking) < self.size:
                raise RuntimeError(
                    f"layer {name!r}: rank {lacking[0]} captured no backward pass that can be "
                    "read, and other ranks did; every rank must take part in the step before an "
                    "evolution, with inputs that are not overwritten"
                )

    def _gather(self, numbers: Iterable[int]) -> list[list[int]]:
        """Collect some integers from each rank."""
        mine = torch.tensor(list(numbers), dtype=torch.int64, device=self._device)
        table = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(table, mine, group=self._group)
        return [row.tolist() for row in table]

    def _from_first(self, tensor: Tensor) -> Tensor:
        """Return the tensor of rank 0, on the device of the given one."""
        sent = tensor.to(self._device).contiguous()
        if self.rank and sent is tensor:
            sent = sent.clone()  # a rule's answer may be shared with the layer
        dist.broadcast(sent, group=self._group, group_src=0)
        return sent.to(tensor.device)


# Not an attribute of the layers: a copy or a pickle of a layer belongs to no group.
_ranks: weakref.WeakKeyDictionary[SparseLayer, Ranks] = weakref.WeakKeyDictionary()
_released: weakref.WeakSet[SparseLayer] = weakref.WeakSet()  # by `tts.distributed.release`


def join(layer: SparseLayer, ranks: Ranks) -> None:
    """Note that a layer has one topology on these ranks from now on."""
    _released.discard(layer)
    _ranks[layer] = ranks


def leave(layer: SparseLayer) -> None:
    """Note that a layer's topology is its own, whatever other ranks do."""
    _released.add(layer)
    _ranks.pop(layer, None)


def is_shared(layer: SparseLayer) -> bool:
    """Whether a layer has one topology on several ranks."""
    return layer in _ranks


def ranks_of(layers: Mapping[str, SparseLayer]) -> Alone:
    """Find the ranks that some layers share.

    Raises:
        ValueError: some are shared and others not, or with other ranks.
    """
    shared = {id(_ranks[layer]): _ranks[layer] for layer in layers.values() if layer in _ranks}
    apart = [name for name, layer in layers.items() if layer not in _ranks]
    if len(shared) > 1 or (shared and apart):
        raise ValueError(
            "the layers of `model` were not prepared together"
            + (f" (layer {apart[0]!r} was not at all)" if apart else "")
            + ": call tts.distributed.prepare once, on the whole model"
        )
    if not shared:
        check_alone(layers)
    return next(iter(shared.values()), None) or Alone()


def check_alone(layers: Mapping[str, SparseLayer]) -> None:
    """Raise where a layer would evolve by itself although several ranks are at work.

    Raises:
        ValueError: the default group has several ranks, and the layer was neither prepared for
            them nor released.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    apart = [name for name, layer in layers.items() if not (layer in _ranks or layer in _released)]
    if apart:
        raise ValueError(
            f"torch.distributed runs with {dist.get_world_size()} ranks, and layer {apart[0]!r} "
            "was not prepared for them: each rank would evolve a topology of its own, and data-"
            "parallel training would mix their gradients in silence. Call "
            "tts.distributed.prepare(module) before the module is wrapped; or, if each rank "
            "trains a model of its own, tts.distributed.release(module)"
        )
