"""Hostile arguments of operators and constructors: refused, or computed as for plain copies.

A trial takes a call that training, evolution or conversion made, damages some of its arguments, and
makes it again: dtypes, shapes, strides, devices, contents, extents and memory that is gone. What is
accepted must give the same bits when the arguments are contiguous copies, and the arguments
themselves must not have changed.
"""

from __future__ import annotations

import copy
import functools
import random
import resource
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

import torch_truly_sparse as tts

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
REFUSALS = (ValueError, TypeError, RuntimeError, IndexError, MemoryError, OverflowError)
SIZES = (-(2**63), -(2**31) - 1, -1, 0, 1, 2, 3, 7, 2**15, 2**31 - 1, 2**31, 2**40, 2**62)
NUMBERS = (float("nan"), float("inf"), -float("inf"), -1.0, -0.0, 0.0, 1.0, 1e-300, 1e300)
DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int8,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
)
MEMORY = 6 << 30  # bytes that a trial may ask for


def trial(seed: int) -> str:
    """Damage a call and make it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    rng = random.Random(seed)
    calls = known_calls()
    name = rng.choice(sorted(calls))
    function, arguments, keywords = rng.choice(calls[name])
    leaves, shape = tree_flatten((arguments, keywords))
    leaves = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    tensors = [at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    damages = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(leaves))
        if isinstance(leaves[at], Tensor) and _is_gone(leaves[at]):
            continue  # torch's own functions would read what is no longer there
        damage, damaged = _damaged(leaves[at], rng)
        if damage == "gone" and not (hasattr(function, "namespace") and at in tensors):
            continue  # so would those that constructors call, and those that print a wrong argument
        leaves[at] = damaged
        damages.append(f"{damage} of argument {at}")
    given, options = tree_unflatten([_copied(leaf) for leaf in leaves], shape)
    try:
        plain, plain_options = tree_unflatten([_plain(leaf) for leaf in leaves], shape)
    except REFUSALS:  # memory that is gone cannot be copied
        plain = None
    try:
        result = function(*given, **options)
    except REFUSALS as error:
        return "refused" if str(error).strip() or isinstance(error, MemoryError) else "WRONG: mute"
    except NotImplementedError:
        return "refused"
    if plain is None:
        return f"WRONG: {name} read memory that is gone: {damages}"
    before = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    after = [leaf for leaf in tree_flatten((given, options))[0] if isinstance(leaf, Tensor)]
    if not all(map(_same, before, after)):
        return f"WRONG: {name} changed its arguments: {damages}"
    try:
        expected = function(*plain, **plain_options)
    except REFUSALS as error:
        return f"WRONG: {name} computes, and refuses plain copies: {damages}: {error}"
    if not _same_results(result, expected):
        return f"WRONG: {name} computes something else for plain copies: {damages}"
    return "computed as for plain copies"


# The calls


@functools.cache
def known_calls() -> dict[str, list[Call]]:
    """Return calls of every operator that a short life of a network makes, and of constructors."""
    recorder = Recorder()
    with recorder:
        for dtype in (torch.float32, torch.float64):
            for batch in (1, 3, 20):
                _live(dtype, batch)
    calls = dict(recorder.calls)
    indices = torch.tensor([[0, 0, 1, 2], [1, 3, 0, 2]])
    values = torch.arange(1.0, 5.0)
    dense = torch.eye(5, 4)
    made: dict[str, Call] = {
        "Topology.from_indices": (tts.Topology.from_indices, (indices, (3, 4)), {}),
        "Topology.from_positions": (
            tts.Topology.from_positions,
            (torch.tensor([1, 3, 4, 10]), (3, 4)),
            {},
        ),
        "TrulySparseLinear": (tts.TrulySparseLinear, (9, 7), {"density": 0.3}),
        "TrulySparseLinear, nnz": (tts.TrulySparseLinear, (9, 7), {"nnz": 20}),
        "TrulySparseLinear, epsilon": (tts.TrulySparseLinear, (9, 7), {"epsilon": 2.0}),
        "from_topology": (_from_topology, (indices, 3, 4, values, torch.zeros(3)), {}),
        "from_dense": (_from_dense, (dense, torch.zeros(5), dense.bool()), {}),
        "forward": (_forward, (indices, values, torch.zeros(3), torch.ones(5, 4)), {}),
    }
    return calls | {name: [call] for name, call in made.items()}


class Recorder(TorchDispatchMode):
    """Keeps the calls of this library's operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: dict[str, list[Call]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note a call and make it."""
        if func.namespace == "torch_truly_sparse":
            leaves, shape = tree_flatten((args, kwargs or {}))
            kept = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            arguments, keywords = tree_unflatten(kept, shape)
            if kept:
                self.calls.setdefault(str(func), []).append((func, arguments, keywords))
        return func(*args, **(kwargs or {}))


def _live(dtype: torch.dtype, batch: int) -> None:
    g = torch.Generator().manual_seed(batch)
    for prune, regrow in (
        ("sign_split", "random"),
        ("magnitude", "gradient"),
        ("random", "momentum"),
        ("magnitude_gradient", "candidate_gradient"),
    ):
        model = nn.Sequential(
            tts.TrulySparseLinear(12, 9, nnz=40, dtype=dtype, generator=g),
            nn.ReLU(),
            tts.TrulySparseLinear(9, 4, nnz=17, dtype=dtype, generator=g),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        evolution = tts.SparseEvolution(
            model, optimizer, prune=prune, regrow=regrow, every=2, generator=g
        )
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(batch, 12, dtype=dtype, generator=g)).square().mean().backward()
            optimizer.step()
        evolution.remove()
    if dtype == torch.float32:
        wide = nn.Sequential(tts.TrulySparseLinear(70_000, 5, nnz=30, generator=g))
        for packed in (torch.float32, torch.bfloat16, torch.int8):
            tts.pack(model, packed)(torch.randn(batch, 12, generator=g))
            tts.pack(wide, packed)(torch.randn(batch, 70_000, generator=g))
    tts.TrulySparseLinear.from_dense(nn.Linear(6, 5), density=0.4)
    tts.distributed.merge_topologies([model[0], model[0]])


def _from_topology(indices: Any, rows: Any, columns: Any, values: Any, bias: Any) -> Any:
    topology = tts.Topology.from_indices(indices, (rows, columns))
    return tts.TrulySparseLinear.from_topology(topology, values, bias)


def _from_dense(weight: Any, bias: Any, mask: Any) -> Any:
    dense = nn.Linear(4, 5)
    dense.weight = nn.Parameter(weight, requires_grad=weight.is_floating_point())
    dense.bias = nn.Parameter(bias, requires_grad=bias.is_floating_point())
    return tts.TrulySparseLinear.from_dense(dense, mask=mask)


def _forward(indices: Any, values: Any, bias: Any, x: Any) -> Any:
    topology = tts.Topology.from_indices(indices, (3, 4))
    return tts.TrulySparseLinear.from_topology(topology, values, bias)(x)


# The damages


def _damaged(leaf: Any, rng: random.Random) -> tuple[str, Any]:
    if isinstance(leaf, Tensor):
        name = rng.choice(sorted(TENSOR_DAMAGES))
        try:
            return name, TENSOR_DAMAGES[name](leaf, rng)
        except (RuntimeError, IndexError, ValueError):  # the damage does not fit this tensor
            return "nothing", leaf
    if rng.random() < 0.15:
        return "another kind", rng.choice((None, "x", [], {}, 1.5, True, object(), torch.ones(2)))
    if isinstance(leaf, bool):
        return "flip", not leaf
    if isinstance(leaf, int):
        return "size", rng.choice((*SIZES, leaf - 1, leaf + 1, rng.randrange(2**40)))
    if isinstance(leaf, float):
        return "number", rng.choice(NUMBERS)
    return "none", None


def _entries(tensor: Tensor, rng: random.Random) -> Tensor:
    """Write hostile numbers into some entries."""
    flat = tensor.clone().contiguous().reshape(-1)
    for _ in range(rng.choice((1, 1, 3, 20))):
        at = rng.randrange(flat.numel())
        if tensor.is_floating_point() or tensor.is_complex():
            flat[at] = rng.choice(NUMBERS)
        else:
            most = torch.iinfo(tensor.dtype).max if tensor.dtype != torch.bool else 1
            flat[at] = rng.choice((-1, -most - 1, most, most // 2, rng.randrange(50), 10**6)) % (
                2 * most + 2
            ) - (most + 1)
    return flat.reshape(tensor.shape)


def _is_gone(tensor: Tensor) -> bool:
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def _gone(tensor: Tensor, rng: random.Random) -> Tensor:
    """Give the memory back to the system, as frameworks do that gather weights when needed."""
    if tensor.is_quantized or tensor.is_neg():
        return tensor  # torch itself reads these before any operator does
    gone = tensor.clone()
    gone.untyped_storage().resize_(0)
    return gone


TENSOR_DAMAGES: dict[str, Callable[[Tensor, random.Random], Tensor]] = {
    "dtype": lambda t, rng: t.to(rng.choice(DTYPES)),
    "entries": _entries,
    "cut": lambda t, rng: t[: rng.randrange(t.shape[0])],
    "longer": lambda t, rng: torch.cat([t, t[: rng.choice((1, 2, 50))]]),
    "every second": lambda t, rng: torch.stack([t, t], -1)[..., rng.randrange(2)],
    "transposed": lambda t, rng: t.t(),
    "turned": lambda t, rng: t.clone().t().contiguous().t(),
    "expanded": lambda t, rng: t[:1].expand(t.shape),
    "more dimensions": lambda t, rng: t.unsqueeze(rng.randrange(t.dim() + 1)),
    "fewer dimensions": lambda t, rng: t.reshape(-1)[0] if rng.random() < 0.5 else t.reshape(-1),
    "empty": lambda t, rng: t.new_empty((0, *t.shape[1:])),
    "meta": lambda t, rng: t.to("meta"),
    "sparse": lambda t, rng: t.to_sparse(),
    "quantized": lambda t, rng: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.qint8),
    "gone": _gone,
    "reversed": lambda t, rng: t.flip(-1),
    "conjugate": lambda t, rng: t.to(torch.complex64).conj().real,
    "negated view": lambda t, rng: t if t.is_quantized else torch._neg_view(t),
}


# Comparing


def _copied(leaf: Any) -> Any:
    """Copy a leaf with its strides, so that what a call writes into is seen."""
    if not isinstance(leaf, Tensor) or leaf.layout != torch.strided or leaf.is_meta:
        return leaf
    if _is_gone(leaf) or leaf.is_quantized:
        return leaf
    return copy.deepcopy(leaf) if not leaf.is_neg() else leaf


def _plain(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    if _is_gone(leaf):
        raise ValueError("memory that is gone")
    if leaf.layout != torch.strided or leaf.is_meta or leaf.is_quantized:
        return leaf
    return leaf.detach().resolve_neg().resolve_conj().clone(memory_format=torch.contiguous_format)


def _same(a: Tensor, b: Tensor) -> bool:
    if a.layout != torch.strided or a.is_meta or b.is_meta or a.is_quantized or _is_gone(a):
        return True
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _same_results(a: Any, b: Any) -> bool:
    if isinstance(a, nn.Module):
        return bool(a.in_features == b.in_features and a.nnz == b.nnz)  # the rest is drawn anew
    if isinstance(a, tts.Topology):
        return a.shape == b.shape and _same(a.indices, b.indices)
    if isinstance(a, Tensor):
        return a.is_meta or _same(a, b)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same_results, a, b))
    return bool(a == b)
