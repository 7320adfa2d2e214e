"""Damaged checkpoints and states: refused with nothing changed, or loaded as what they say."""

from __future__ import annotations

import copy
import io
import pickle
import random
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import torch_truly_sparse as tts
from torch_truly_sparse.checkpoint import resume, save

State = dict[str, Any]


def network(seed: int, inputs: int = 9) -> nn.Sequential:
    """Make a small network with two sparse layers."""
    g = torch.Generator().manual_seed(seed)
    return nn.Sequential(
        tts.TrulySparseLinear(inputs, 12, nnz=30, generator=g),
        nn.ReLU(),
        nn.LayerNorm(12),
        tts.TrulySparseLinear(12, 4, nnz=17, generator=g),
    )


class Run:
    """A network that trains and evolves."""

    def __init__(self, seed: int, steps: int = 0, regrow: str = "random") -> None:
        self.model = network(seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.evolution = tts.SparseEvolution(
            self.model,
            self.optimizer,
            regrow=regrow,
            every=2,
            generator=torch.Generator().manual_seed(seed),
        )
        self.train(steps)

    def train(self, steps: int) -> None:
        """Take steps; each second one is followed by an evolution."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.ones(4, 9)).square().sum().backward()
            self.optimizer.step()

    @property
    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"model": self.model, "optimizer": self.optimizer, "evolution": self.evolution}

    def content(self) -> list[Any]:
        """Copy all that may not change when a state is refused."""
        parts = (self.model, self.optimizer, self.evolution)
        return copy.deepcopy([part.state_dict() for part in parts])


def trial(seed: int) -> str:
    """Damage a checkpoint, or an entry of a state, and load it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.pt"
        if rng.random() < 0.4:
            save(path, **Run(seed % 50, steps=5).parts)
            kind = _damage_bytes(path, rng)
            return _resume(path, kind, rng)
        return _load(rng, seed)


# A file


def _damage_bytes(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    kind = rng.choice(("flip", "cut", "zero", "swap", "insert", "repeat", "overwrite"))
    size = len(content)
    at = rng.randrange(size)
    length = rng.choice((1, 8, 64, 512))
    if kind == "flip":
        for _ in range(rng.choice((1, 2, 8, 100))):
            content[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "zero":
        content[at : at + length] = bytes(len(content[at : at + length]))
    elif kind == "swap":
        other = rng.randrange(size)
        first, second = content[at : at + length], content[other : other + length]
        content[at : at + len(second)], content[other : other + len(first)] = second, first
    elif kind == "insert":
        content[at:at] = rng.randbytes(length)
    elif kind == "repeat":
        content[at:at] = content[at : at + length]
    else:
        content[at : at + length] = rng.randbytes(len(content[at : at + length]))
    path.write_bytes(bytes(content))
    return kind


def _resume(path: Path, kind: str, rng: random.Random) -> str:
    saved = Run(rng.randrange(50))  # any fresh run
    before = saved.content()
    try:
        resume(path, **saved.parts)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        if not same(before, saved.content()):
            return f"WRONG: a refused file ({kind}) has changed the run: {error}"
        return "file refused"
    wrong = problem(saved.model)
    return f"WRONG: {kind}: {wrong}" if wrong else "file loaded"


# A state


def _load(rng: random.Random, seed: int) -> str:
    given = copy.deepcopy(network(seed % 50).state_dict())
    kind = rng.choice(sorted(DAMAGES))
    DAMAGES[kind](given, rng)
    model = network(seed % 50 + 1)
    if rng.random() < 0.5:
        model(torch.ones(20, 9, requires_grad=True)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    if rng.random() < 0.5:
        tts.nn.load_all_or_nothing(model)
        whole = True
    else:
        whole = False
    if rng.random() < 0.3:
        buffer = io.BytesIO()
        torch.save(given, buffer)
        buffer.seek(0)
        try:
            given = torch.load(buffer, weights_only=True)
        except pickle.UnpicklingError:
            return "state that torch does not read"
    options = {"strict": rng.random() < 0.5, "assign": rng.random() < 0.3}
    try:
        model.load_state_dict(given, **options)
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        if whole and not same(before, model.state_dict()):
            return f"WRONG: a refused state ({kind}) has changed the model: {error}"
        wrong = problem(model)
        if wrong:
            return f"WRONG: a refused state ({kind}) has broken the model: {wrong}"
        return "state refused"
    except AttributeError as error:
        return f"WRONG: {kind}: AttributeError: {error}"
    if any(tensor.is_meta for tensor in model.state_dict().values()):
        return "state loaded whose parts are on meta" if problem(model) else "WRONG: meta computes"
    norm = [given[key] for key in ("2.weight", "2.bias") if isinstance(given.get(key), Tensor)]
    if options["assign"] and any(e.dtype != torch.float32 or e.is_sparse for e in norm):
        # torch's own layer takes what it is assigned, and raises at its next use.
        return "state loaded that torch's own layer refuses at its use"
    wrong = problem(model) or _other_than(given, model, before)
    return f"WRONG: {kind}, {options}: {wrong}" if wrong else "state loaded"


def _entry(state: State, rng: random.Random, *names: str) -> str:
    return rng.choice([key for key in state if key.rpartition(".")[2] in names])


def _index(state: State, rng: random.Random) -> None:
    indices = state[_entry(state, rng, "indices")]
    values = (-1, 0, 5, 9, 11, 12, 13, 2**31 - 1, -(2**31), 100)
    for _ in range(rng.choice((1, 1, 3))):
        indices[rng.randrange(2), rng.randrange(indices.shape[1])] = rng.choice(values)


def _order(state: State, rng: random.Random) -> None:
    key = _entry(state, rng, "indices")
    count = state[key].shape[1]
    order = list(range(count))
    a, b = rng.randrange(count), rng.randrange(count)
    order[a], order[b] = order[b], order[a]
    state[key] = state[key][:, order]


def _double(state: State, rng: random.Random) -> None:
    indices = state[_entry(state, rng, "indices")]
    at = rng.randrange(1, indices.shape[1])
    indices[:, at] = indices[:, at - 1]


def _length(state: State, rng: random.Random) -> None:
    key = _entry(state, rng, "indices", "values", "bias", "seal", "weight")
    cut = rng.randrange(state[key].shape[-1])
    state[key] = rng.choice(
        (state[key][..., :cut], torch.cat([state[key], state[key][..., :cut]], dim=-1))
    )


def _both_lengths(state: State, rng: random.Random) -> None:
    prefix = _entry(state, rng, "indices").removesuffix("indices")
    cut = rng.randrange(state[prefix + "values"].shape[0])
    for name in ("indices", "values"):
        state[prefix + name] = state[prefix + name][..., :cut]


def _dtype(state: State, rng: random.Random) -> None:
    key = rng.choice(sorted(state))
    kinds = (torch.float16, torch.int16, torch.int64, torch.uint8, torch.bool, torch.float64)
    state[key] = state[key].to(rng.choice((*kinds, torch.complex64)))


def _dimensions(state: State, rng: random.Random) -> None:
    key = rng.choice(sorted(state))
    entry = state[key]
    state[key] = rng.choice(
        (entry.flatten(), entry[None], entry.new_zeros(()), entry.new_zeros((0,)), entry.T)
    )


def _kind(state: State, rng: random.Random) -> None:
    key = rng.choice(sorted(state))
    entry = state[key]
    state[key] = rng.choice(
        (None, 3, "text", entry.tolist(), entry.to("meta"), entry.to_sparse(), entry.numpy())
    )


def _missing(state: State, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2))):
        state.pop(rng.choice(sorted(state)))


def _extra(state: State, rng: random.Random) -> None:
    state[rng.choice(("0.weight", "3.weight", "1.values", "other", "0.indices.x"))] = torch.ones(3)


def _seal(state: State, rng: random.Random) -> None:
    seal = state[_entry(state, rng, "seal")]
    for _ in range(rng.choice((1, 5))):
        seal[rng.randrange(192)] *= rng.choice((-1, 0))


def _other_width(state: State, rng: random.Random) -> None:
    state.update({k: v for k, v in network(3, inputs=7).state_dict().items() if k[0] == "0"})


def _mixed(state: State, rng: random.Random) -> None:
    other = network(rng.randrange(100)).state_dict()
    for key in rng.sample(sorted(state), rng.randrange(1, 4)):
        state[key] = other[key]


def _numbers(state: State, rng: random.Random) -> None:
    values = state[_entry(state, rng, "values", "bias")]
    values[rng.randrange(len(values))] = rng.choice((float("nan"), float("inf"), 1e38, 0.0))


def _views(state: State, rng: random.Random) -> None:
    key = _entry(state, rng, "indices", "values")
    state[key] = rng.choice(
        (state[key].expand(2, *state[key].shape)[1], torch.cat([state[key]] * 2, -1)[..., ::2])
    )


DAMAGES: dict[str, Callable[[State, random.Random], None]] = {
    "an index": _index,
    "the order": _order,
    "a duplicate": _double,
    "a length": _length,
    "two lengths": _both_lengths,
    "a dtype": _dtype,
    "dimensions": _dimensions,
    "the kind of an entry": _kind,
    "a missing entry": _missing,
    "an extra entry": _extra,
    "the seal": _seal,
    "another width": _other_width,
    "entries of another state": _mixed,
    "numbers": _numbers,
    "views": _views,
}


# What must hold


def problem(model: nn.Module) -> str | None:
    """Say what is wrong with a model, if anything: a layer computes what its dense form does."""
    x = torch.randn(3, 9, requires_grad=True)
    try:
        for layer in model.modules():
            if not isinstance(layer, tts.TrulySparseLinear):
                continue
            shape = (layer.out_features, layer.in_features)
            topology = tts.Topology.from_indices(layer.indices, shape)
            if topology.nnz != layer.values.shape[0]:
                return "indices and values differ in number"
            input = torch.randn(20, layer.in_features, requires_grad=True)
            weight = torch.zeros(shape)
            rows, columns = topology.indices.long()
            weight[rows, columns] = layer.values.detach().float()
            expected = nn.functional.linear(input, weight, layer.bias)
            output = layer(input)
            if not torch.allclose(output, expected, atol=1e-4, rtol=1e-4, equal_nan=True):
                return "a layer computes something else than its matrix says"
            (ours,) = torch.autograd.grad(output.sum(), input)
            (theirs,) = torch.autograd.grad(expected.sum(), input)
            if not torch.allclose(ours, theirs, atol=1e-4, rtol=1e-4, equal_nan=True):
                return "a gradient is something else than the matrix says"
        model(x).sum().backward()
    except (ValueError, TypeError, RuntimeError) as error:
        return f"cannot be used: {error}"
    return None


def _other_than(state: Mapping[str, Any], model: nn.Module, before: State) -> str | None:
    """Say where a loaded model differs from both the state and what it was."""
    for key, own in model.state_dict().items():
        given = state.get(key)
        wanted = (
            own if key.endswith("seal") else given if isinstance(given, Tensor) else before[key]
        )
        if wanted.shape != own.shape or not torch.equal(
            wanted.to(own.dtype).nan_to_num(), own.nan_to_num()
        ):
            return f"{key} is neither what was saved nor what it was"
    return None


def same(first: Any, second: Any) -> bool:
    """Whether two nested contents are the same to the bit; NaN equals NaN."""
    if isinstance(first, Tensor):
        return (
            isinstance(second, Tensor)
            and first.dtype == second.dtype
            and torch.equal(first.nan_to_num(), second.nan_to_num())
        )
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)
