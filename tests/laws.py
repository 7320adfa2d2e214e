"""What every operator must satisfy: each law is a function that raises AssertionError.

A law takes the operator's entry in the table and one of its samples. test_operator_laws.py applies
the laws to the table; test_laws_can_fail.py applies each to an operator that breaks it.
"""

from __future__ import annotations

import hashlib
import random
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import combinations
from typing import Any

import torch
from operator_entry import IllFormed, Operator, Sample, as_results
from oracles import same_bits
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch_truly_sparse import _library, active_isa

TYPES_ARE_LOST = isinstance(_library.operators, _library._WithTypedErrors)

Law = Callable[[Operator, Any], None]
Tensors = tuple[Tensor, ...]


def apply(law: Law, entry: Operator, samples: Iterable[Sample | IllFormed]) -> None:
    """Apply a law to all samples, and raise with the labels of those that break it."""
    broken, count = [], 0
    for sample in samples:
        count += 1
        try:
            law(entry, sample)
        except Exception as error:  # an operator's error breaks a law, too
            broken.append(f"[{sample.label}] {type(error).__name__}: {error}")
    assert count, f"{entry.name} has no samples for this law"
    shown = "\n".join(broken[:10])
    assert not broken, f"{entry.name}: {len(broken)} of {count} samples break the law:\n{shown}"


# Numbers


def agree(actual: Tensors, expected: Tensors, magnitudes: Tensors, terms: tuple[int, ...]) -> None:
    """Compare sums of `terms` products with their float64 values.

    Summed in any order, the error is at most (terms + 1) epsilon times the sum of the absolute
    products, the magnitude; twice that, for the compared values round as well. A result that is
    stored in a narrower type than it is summed in is rounded once more.
    """
    assert len(actual) == len(expected) == len(magnitudes) == len(terms)
    for i, number_of_terms in enumerate(terms):
        a, e = actual[i].double(), expected[i].double()
        assert a.shape == e.shape, f"result {i} has shape {tuple(a.shape)}, not {tuple(e.shape)}"
        stored = torch.finfo(actual[i].dtype)
        summed = torch.finfo(torch.float64 if actual[i].dtype == torch.float64 else torch.float32)
        bound = 2 * (number_of_terms + 1) * summed.eps * magnitudes[i].double()
        if stored.bits < 32:
            bound = bound + stored.eps / 2 * (e.abs() + bound) + stored.smallest_normal * stored.eps
        if ((a - e).abs() <= bound).all():
            continue
        excess = (a - e).abs() - bound
        assert not excess.isnan().any(), f"result {i} has entries that are no numbers"
        worst = excess.max().item()
        raise AssertionError(f"result {i} is off by {worst:.3g} more than rounding explains")


def identical(actual: Tensors, expected: Tensors, what: str) -> None:
    assert len(actual) == len(expected)
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert (a.shape, a.dtype) == (e.shape, e.dtype), (
            f"{what}: result {i} is {tuple(a.shape)} {a.dtype}, not {tuple(e.shape)} {e.dtype}"
        )
        assert same_bits(a, e), f"{what}: result {i} differs"


def mapped(function: Callable[[Tensor], Tensor], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(function(a) if isinstance(a, Tensor) else a for a in arguments)


def in_double(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return mapped(lambda t: t.double() if t.is_floating_point() else t, arguments)


def absolute(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    def magnitude(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.int8:  # numbers; the other integers are places
            return tensor.abs()
        return tensor.double().abs() if tensor.is_floating_point() else tensor

    return mapped(magnitude, arguments)


def equals_reference(entry: Operator, sample: Sample) -> None:
    """The compiled form computes what the plain-torch form computes (in float64, for sums)."""
    actual = entry.compute(*sample.arguments)
    if entry.reference is None:
        assert entry.check is not None, "neither a reference nor a check"
        entry.check(*sample.arguments, actual)
    elif entry.terms is None:
        identical(actual, as_results(entry.reference(*sample.arguments)), "reference")
    else:
        expected = as_results(entry.reference(*in_double(sample.arguments)))
        magnitudes = as_results(entry.reference(*absolute(sample.arguments)))
        agree(actual, expected, magnitudes, entry.terms(*sample.arguments))


def equals_oracle(entry: Operator, sample: Sample) -> None:
    """The compiled form computes what an independent form does."""
    compare_with_oracle(entry, sample, entry.compute(*sample.arguments))


def has_true_reference(entry: Operator, sample: Sample) -> None:
    """The plain-torch form computes what an independent form does."""
    assert entry.reference is not None
    compare_with_oracle(entry, sample, as_results(entry.reference(*sample.arguments)))


def compare_with_oracle(entry: Operator, sample: Sample, actual: Tensors) -> None:
    assert entry.oracle is not None
    expected = as_results(entry.oracle(*sample.arguments))
    if entry.terms is None:
        identical(actual, expected, "oracle")
    else:
        magnitudes = as_results(entry.oracle(*absolute(sample.arguments)))
        agree(actual, expected, magnitudes, entry.terms(*sample.arguments))


def computes_right(entry: Operator) -> None:
    """Every sample, small or large, equals oracle or reference, or passes the entry's check."""
    everything = [*entry.samples(), *entry.large()]
    compared = [sample for sample in everything if entry.oracle and sample.by_oracle]
    if compared:
        apply(equals_oracle, entry, compared)
    others = [s for s in everything if s.by_reference and not (entry.oracle and s.by_oracle)]
    if others:
        apply(equals_reference, entry, others)


# Registration


def passes_opcheck(entry: Operator, sample: Sample) -> None:
    """torch finds schema, fake form and registration of derivatives consistent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own tracing
        torch.library.opcheck(entry.overload, sample.arguments)


def same_form(real: Tensors, other: Tensors) -> None:
    assert len(real) == len(other), "another number of results"
    for i, (a, b) in enumerate(zip(real, other, strict=True)):
        actual, told = (a.shape, a.dtype, a.stride()), (b.shape, b.dtype, b.stride())
        assert actual == told, f"result {i} is {actual}, its shape-only form {told}"


def has_true_meta_form(entry: Operator, sample: Sample) -> None:
    """On the meta device the results have the shapes, dtypes and strides of the real ones."""
    real = entry.compute(*sample.arguments)
    meta = entry.compute(*mapped(lambda t: t.to("meta"), sample.arguments))
    same_form(real, meta)
    assert all(t.device.type == "meta" for t in meta), "computed, although on meta"


def has_true_fake_form(entry: Operator, sample: Sample) -> None:
    """What `torch.compile` sees has the form of the real results, as far as it can be known."""
    real = entry.compute(*sample.arguments)
    # Static sizes: those that are still unknown in the results follow from content.
    with FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True) as mode:
        fake = entry.compute(*mapped(mode.from_tensor, sample.arguments))
    assert all(t.device == r.device for t, r in zip(fake, real, strict=True)), "another device"
    if not entry.data_dependent:
        same_form(real, fake)
        return
    assert [(t.dim(), t.dtype) for t in fake] == [(t.dim(), t.dtype) for t in real]
    assert all(not isinstance(size, int) for t in fake for size in t.shape), "a size was guessed"


# Memory


def layouts(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same content, laid out in memory in the ways that torch makes by itself."""
    noise = tensor.flip(0) if tensor.dim() else tensor
    yield "with gaps", torch.stack([noise, tensor, noise], -1)[..., 1]
    yield "offset", torch.cat([tensor.new_zeros(3), tensor.flatten()])[3:].view(tensor.shape)
    if tensor.dim() == 2:
        yield "transposed", tensor.t().contiguous().t()
        yield "a block", torch.cat([tensor.new_ones(len(tensor), 3), tensor], 1)[:, 3:]
    if tensor.is_floating_point():
        yield "lazily negated", torch._neg_view(-tensor)


def expansions(tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Content of the same shape that repeats without memory of its own."""
    if tensor.numel() == 0 or tensor.dim() == 0:
        return
    yield "first entry expanded", tensor.flatten()[0].expand(tensor.shape)
    if tensor.dim() == 2:
        yield "rows expanded", tensor[:1].expand(tensor.shape)
        yield "columns expanded", tensor[:, :1].expand(tensor.shape)


def reads_any_layout(entry: Operator, sample: Sample) -> None:
    """No layout of an argument changes a bit of the results."""
    given = sample.arguments
    expected = entry.compute(*given)
    for i, (name, argument) in enumerate(zip(entry.names, given, strict=False)):
        if not isinstance(argument, Tensor) or name in entry.writes:
            continue
        for layout, tensor in layouts(argument):
            assert same_bits(tensor, argument)
            actual = entry.compute(*given[:i], tensor, *given[i + 1 :])
            identical(actual, expected, f"`{name}` {layout}")
        for layout, tensor in expansions(argument) if name in entry.arbitrary else ():
            actual = entry.compute(*given[:i], tensor, *given[i + 1 :])
            plain = tensor.clone(memory_format=torch.contiguous_format)
            wanted = entry.compute(*given[:i], plain, *given[i + 1 :])
            identical(actual, wanted, f"`{name}` {layout}")


def extent(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


def leaves_its_arguments_alone(entry: Operator, sample: Sample) -> None:
    """Arguments are never written, and results lie in memory of their own."""
    tensors = [a for a in sample.arguments if isinstance(a, Tensor)]
    before = [(t.clone(), t._version) for t in tensors]
    results = entry.compute(*sample.arguments)
    unwritten(entry, sample.arguments, before)
    places = [extent(t) for t in results if t.numel()]
    for a, b in combinations(places, 2):
        assert a[1] <= b[0] or b[1] <= a[0], "two results share memory"
    for a in places:
        for b in (extent(t) for t in tensors if t.numel()):
            assert a[1] <= b[0] or b[1] <= a[0], "a result shares memory with an argument"


def unwritten(
    entry: Operator, arguments: tuple[Any, ...], before: list[tuple[Tensor, int]]
) -> None:
    named = [
        (name, a) for name, a in zip(entry.names, arguments, strict=False) if isinstance(a, Tensor)
    ]
    for (name, tensor), (copy, version) in zip(named, before, strict=True):
        assert same_bits(tensor, copy), f"`{name}` was written"
        assert tensor._version == version, f"`{name}` has another version"


@contextmanager
def poisoned(entry: Operator) -> Iterator[None]:
    entry.poison(True)
    try:
        yield
    finally:
        entry.poison(False)


def writes_every_entry(entry: Operator, sample: Sample) -> None:
    """No entry of a result keeps what its memory held before."""
    expected = entry.compute(*sample.arguments)
    with poisoned(entry):
        actual = entry.compute(*sample.arguments)
    identical(actual, expected, "written over 0xFF bytes")


# Threads and instruction sets


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_the_same_bits_on_any_threads(entry: Operator, sample: Sample) -> None:
    """The number of threads changes no bit, where there is work enough to be split."""
    assert sample.work >= entry.split_from, "too little work to be split"
    with threads(1):
        expected = entry.compute(*sample.arguments)
    for number in 2, 3, 4:
        with threads(number):
            identical(entry.compute(*sample.arguments), expected, f"{number} threads")


def runs_in(wanted: str) -> None:
    """The kernels of this process run in the wanted instruction set."""
    assert active_isa() == wanted, f"{active_isa()} runs, not {wanted}"


def digest(entry: Operator) -> str:
    """A hash of all results, for an operator whose results no instruction set may change."""
    hashed = hashlib.sha256()
    for sample in [*entry.samples(), *entry.large()]:
        for result in entry.compute(*sample.arguments):
            hashed.update(bytes(result.numpy()))
    return hashed.hexdigest()


# Refusals


def is_refused(entry: Operator, sample: IllFormed) -> None:
    """Ill-formed arguments raise an error that names what is wrong, and stay as they are."""
    tensors = [a for a in sample.arguments if isinstance(a, Tensor)]
    before = [(t.clone(), t._version) for t in tensors]
    raised: Exception | None = None
    try:
        entry.call(*sample.arguments)
    except Exception as error:
        raised = error
    assert raised is not None, "accepted"
    # Some releases of torch make every error of a call through torch.ops a RuntimeError; what this
    # library then makes of it is in test_library.py.
    expected = RuntimeError if TYPES_ARE_LOST else sample.error
    assert type(raised) is expected, f"{type(raised).__name__}, not {expected.__name__}"
    assert re.search(sample.text, str(raised)), f"{raised} does not match {sample.text}"
    unwritten(entry, sample.arguments, before)


NUMBERS = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 5, 6, 7, 2**31 - 1, 2**31, 2**62, 2**63 - 1]
# Small ones, and such whose bytes have no 64-bit number, or wrap around to a small one.
SIZES = [*(n for n in NUMBERS if n < 8), 2**62, 2**62 + 2**16, 2**63 - 1]
GUARD = 64  # entries on both sides of an argument


def guarded(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """A copy that lies amid memory of its own, and that memory."""
    memory = torch.zeros(tensor.numel() + 2 * GUARD, dtype=tensor.dtype)
    memory.view(torch.uint8).fill_(1)
    copy = memory[GUARD : GUARD + tensor.numel()].view(tensor.shape)
    return copy.copy_(tensor), memory


def spoiled(tensor: Tensor, luck: random.Random) -> Tensor:
    """Overwrite some entries of a tensor of integers or booleans, in place."""
    flat = tensor.view(-1).view(torch.uint8) if tensor.dtype == torch.bool else tensor.view(-1)
    limits = torch.iinfo(flat.dtype)
    pool = [n for n in [*NUMBERS, len(flat), 255] if limits.min <= n <= limits.max]
    for _ in range(luck.choice([0, 1, 1, 2, 5])):
        if len(flat):
            flat[luck.randrange(len(flat))] = luck.choice(pool)
    return tensor


def survives_hostile_content(entry: Operator, sample: Sample, rounds: int = 2) -> None:
    """Integers of any content give an error or results, and no access beyond the arguments.

    A foreign write is seen in what lies around each argument, or crashes; so does a foreign read
    that is far away. To be run in a process of its own.
    """
    for seed in range(rounds):
        luck = random.Random(f"{entry.name} {sample.label} {seed}")
        arguments, guards = list(sample.arguments), []
        for i, (name, argument) in enumerate(zip(entry.names, arguments, strict=False)):
            if isinstance(argument, Tensor):
                arguments[i], memory = guarded(argument)
                if name not in entry.arbitrary and not argument.is_floating_point():
                    spoiled(arguments[i], luck)
                guards.append((name, memory, memory.clone()))
            elif type(argument) is int and luck.random() < 0.2:
                arguments[i] = luck.choice(SIZES)
        # torch's own errors are for sizes that no tensor can have.
        with suppress(ValueError, RuntimeError, MemoryError):
            entry.call(*arguments)
        for name, memory, copy in guards:
            if name in entry.writes:  # but not what lies around it
                memory[GUARD:-GUARD] = copy[GUARD:-GUARD]
            assert same_bits(memory, copy), f"`{name}` or what lies around it was written"
