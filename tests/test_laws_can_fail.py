"""Each law of laws.py, applied to an operator that breaks it, raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import laws
import pytest
import torch
from operator_entry import IllFormed, Operator, Sample
from test_operator_laws import registered
from torch import Tensor

from torch_truly_sparse import active_isa

NAMESPACE = "truly_sparse_test_faults"
ONE = "(Tensor input, Tensor places) -> Tensor"
TWO = "(Tensor input, Tensor places) -> (Tensor, Tensor)"

poison = {"enabled": False}


def memory_like(tensor: Tensor) -> Tensor:
    """Memory for a result, as the operators' own: poisoned if asked."""
    result = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if poison["enabled"]:
        result.view(torch.uint8).fill_(0xFF)
    return result


def doubled(input: Tensor, places: Tensor) -> Tensor:
    if places.numel() and places.min() < 0:
        raise ValueError("`places` must not be negative")
    return memory_like(input).copy_(input).mul_(2)


def exactly_doubled(input: Tensor, places: Tensor) -> Tensor:
    return input * 2


def empty_like(input: Tensor, places: Tensor) -> Tensor:
    return torch.empty(input.shape, dtype=input.dtype, device=input.device)


SAMPLE = Sample("3 x 5", (torch.randn(3, 5), torch.arange(4)), work=100)
NEGATIVE = torch.tensor([1, -1])
ILL_FORMED = IllFormed("negative", (torch.randn(3, 5), NEGATIVE), "`places` must not be negative")


@pytest.fixture
def define() -> Iterator[Callable[..., Operator]]:
    """Registers `faulty` with the given forms for one test, and makes its entry."""
    library = torch.library.Library(NAMESPACE, "DEF")

    def entry(
        compute: Callable[..., Any] = doubled,
        fake: Callable[..., Any] = empty_like,
        schema: str = ONE,
        **changes: Any,
    ) -> Operator:
        library.define("faulty" + schema)
        library.impl("faulty", compute, "CPU")
        torch.library.register_fake(f"{NAMESPACE}::faulty", fake, lib=library)
        settings: dict[str, Any] = {
            "samples": lambda: [SAMPLE],
            "few": lambda: [SAMPLE],
            "ill_formed": lambda: [ILL_FORMED],
            "reference": exactly_doubled,
            "oracle": exactly_doubled,
            "arbitrary": frozenset({"input"}),
            "namespace": NAMESPACE,
            "poison": lambda enabled: poison.update(enabled=enabled),
        }
        return Operator("faulty", **{**settings, **changes})

    yield entry
    library._destroy()
    if hasattr(torch.ops, NAMESPACE):
        delattr(torch.ops, NAMESPACE)


def breaks(law: laws.Law, entry: Operator, sample: Sample | IllFormed, text: str) -> None:
    with pytest.raises(AssertionError, match=text):
        law(entry, sample)


LAWS_OF_SAMPLES = [
    laws.equals_reference,
    laws.equals_oracle,
    laws.has_true_reference,
    laws.passes_opcheck,
    laws.has_true_meta_form,
    laws.has_true_fake_form,
    laws.reads_any_layout,
    laws.leaves_its_arguments_alone,
    laws.writes_every_entry,
    laws.has_the_same_bits_on_any_threads,
    laws.survives_hostile_content,
]


@pytest.mark.parametrize("law", LAWS_OF_SAMPLES, ids=lambda law: law.__name__)
def test_a_sound_operator_keeps_every_law(law, define) -> None:
    law(define(), SAMPLE)


def test_a_sound_operator_refuses(define) -> None:
    laws.is_refused(define(), ILL_FORMED)


def test_no_samples_are_no_proof(define) -> None:
    with pytest.raises(AssertionError, match="faulty has no samples"):
        laws.apply(laws.equals_oracle, define(), [])


def test_a_failure_names_operator_and_sample(define) -> None:
    entry = define(lambda input, places: input * 3)
    with pytest.raises(AssertionError, match=r"(?s)faulty: 1 of 1 samples .*\[3 x 5\] Asser"):
        laws.apply(laws.equals_oracle, entry, entry.samples())


# Numbers


@pytest.mark.parametrize("law", [laws.equals_reference, laws.equals_oracle])
@pytest.mark.parametrize("terms", [None, lambda *_: (1,)], ids=["exact", "rounded"])
@pytest.mark.parametrize(
    "fault",
    [
        lambda y: y * (1 + 1e-5),
        lambda y: y.flip(0),
        lambda y: y.index_fill(0, torch.tensor([1]), float("nan")),
        lambda y: y[1:],
    ],
    ids=["imprecise", "in another order", "NaN", "too short"],
)
def test_wrong_numbers(law, terms, fault, define) -> None:
    entry = define(lambda input, places: fault(input * 2), terms=terms)
    breaks(law, entry, SAMPLE, "differs|off by|no numbers|has shape|not \\(3, 5\\)")
    with pytest.raises(AssertionError):
        laws.computes_right(entry)


def test_another_dtype(define) -> None:
    entry = define(lambda input, places: input.double() * 2)
    breaks(laws.equals_oracle, entry, SAMPLE, "float64, not .*float32")


def test_a_rounding_error_within_the_bound_is_none(define) -> None:
    entry = define(lambda input, places: input * 2 * (1 + 2**-23), terms=lambda *_: (1,))
    laws.equals_oracle(entry, SAMPLE)


def test_half_precision_is_rounded_once(define) -> None:
    numbers = torch.linspace(0.1, 7, 50).bfloat16()
    sample = Sample("bfloat16", (numbers, torch.arange(4)))
    entry = define(lambda input, places: input * 2, terms=lambda *_: (1,))
    laws.equals_oracle(entry, sample)
    two_steps = numbers.view(torch.int16).add(2).view(torch.bfloat16)
    coarse = Sample("bfloat16", (two_steps, torch.arange(4)))
    with pytest.raises(AssertionError, match="off by"):
        laws.compare_with_oracle(entry, sample, entry.compute(*coarse.arguments))


def test_a_wrong_reference(define) -> None:
    entry = define(reference=lambda input, places: input * 3)
    breaks(laws.has_true_reference, entry, SAMPLE, "differs")


def test_a_failed_check(define) -> None:
    def check(input: Tensor, places: Tensor, results: tuple[Tensor]) -> None:
        assert results[0].sum() == 1, "not what was promised"

    entry = define(reference=None, oracle=None, check=check)
    breaks(laws.equals_reference, entry, SAMPLE, "not what was promised")


# Registration


def test_an_undeclared_write_fails_opcheck(define) -> None:
    entry = define(lambda input, places: input.add_(1).mul(2))
    with pytest.raises(torch.testing._internal.optests.OpCheckError):
        laws.passes_opcheck(entry, Sample("own", (torch.randn(3, 5), torch.arange(4))))


FALSE_FORMS = {
    "shape": lambda input, places: input.new_empty(5, 3),
    "dtype": lambda input, places: input.new_empty(3, 5, dtype=torch.float64),
    "stride": lambda input, places: input.new_empty(5, 3).t(),
}


@pytest.mark.parametrize("law", [laws.has_true_meta_form, laws.has_true_fake_form])
@pytest.mark.parametrize("fake", FALSE_FORMS.values(), ids=FALSE_FORMS.keys())
def test_a_false_shape_only_form(law, fake, define) -> None:
    breaks(law, define(fake=fake), SAMPLE, "its shape-only form")


def test_a_meta_form_that_computes(define) -> None:
    entry = define(fake=lambda input, places: torch.zeros(3, 5))
    breaks(laws.has_true_meta_form, entry, SAMPLE, "computed, although on meta")


def test_a_guessed_size(define) -> None:
    breaks(laws.has_true_fake_form, define(data_dependent=True), SAMPLE, "a size was guessed")


# Memory


def as_if_contiguous(input: Tensor, places: Tensor) -> Tensor:
    strides = [input.shape[1:].numel(), 1][-input.dim() :]
    return torch.as_strided(input, input.shape, strides, 0) * 2


def test_strides_that_are_ignored(define) -> None:
    breaks(laws.reads_any_layout, define(as_if_contiguous), SAMPLE, "`input` with gaps")


def test_an_offset_that_is_ignored(define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        return torch.as_strided(input, input.shape, input.stride(), 0) * 2

    breaks(laws.reads_any_layout, define(compute), SAMPLE, "`input` with gaps|`input` offset")


def test_expanded_memory_that_is_misread(define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        return input * (3 if 0 in input.stride() else 2)

    entry = define(compute)
    breaks(laws.reads_any_layout, entry, SAMPLE, "`input` first entry expanded")
    narrowed = Operator(**{**vars(entry), "arbitrary": frozenset()})
    laws.reads_any_layout(narrowed, SAMPLE)


def test_a_written_argument(define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        places[0] += 1
        return input * 2

    sample = Sample("own", (torch.randn(3, 5), torch.arange(4)))
    breaks(laws.leaves_its_arguments_alone, define(compute), sample, "`places` was written")


def test_an_argument_that_is_written_and_restored(define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        places += 1
        places -= 1
        return input * 2

    breaks(laws.leaves_its_arguments_alone, define(compute), SAMPLE, "another version")


def test_a_result_that_is_an_argument(define) -> None:
    entry = define(lambda input, places: input.view(-1).view(3, 5))
    breaks(laws.leaves_its_arguments_alone, entry, SAMPLE, "shares memory with an argument")


def test_results_that_share_memory(define) -> None:
    def compute(input: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([input, input])
        return both[:4], both[2:]

    breaks(laws.leaves_its_arguments_alone, define(compute, schema=TWO), SAMPLE, "two results")


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16, torch.bool])
def test_an_entry_that_is_not_written(dtype, define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        result = memory_like(input)
        result[:-1] = input[:-1]
        return result

    numbers = torch.zeros(3, 5, dtype=dtype)
    entry = define(compute)
    breaks(laws.writes_every_entry, entry, Sample("", (numbers, SAMPLE.arguments[1])), "0xFF")
    assert not poison["enabled"]


# Threads and instruction sets


@pytest.mark.parametrize("different", [2, 3, 4])
def test_bits_that_depend_on_the_number_of_threads(different, define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        return input * (2 + 1e-6 * (torch.get_num_threads() == different))

    before = torch.get_num_threads()
    law = laws.has_the_same_bits_on_any_threads
    breaks(law, define(compute), SAMPLE, f"{different} threads")
    assert torch.get_num_threads() == before


def test_work_that_is_not_split_is_no_proof(define) -> None:
    entry = define(split_from=101)
    breaks(laws.has_the_same_bits_on_any_threads, entry, SAMPLE, "too little work")


def test_another_instruction_set() -> None:
    laws.runs_in(active_isa())
    with pytest.raises(AssertionError, match="runs, not sse9"):
        laws.runs_in("sse9")


def test_digests_see_each_bit(define) -> None:
    entry = define()
    others = Operator(
        **{
            **vars(entry),
            "samples": lambda: [Sample("", (-SAMPLE.arguments[0], *SAMPLE.arguments[1:]))],
        }
    )
    assert laws.digest(entry) == laws.digest(entry) != laws.digest(others)


# Refusals


def refusing(error: Exception) -> Callable[..., Tensor]:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        raise error

    return compute


def test_ill_formed_arguments_that_are_accepted(define) -> None:
    breaks(laws.is_refused, define(exactly_doubled), ILL_FORMED, "accepted")


def test_another_error(define) -> None:
    entry = define(refusing(RuntimeError("`places` must not be negative")))
    breaks(laws.is_refused, entry, ILL_FORMED, "RuntimeError, not ValueError")


def test_an_error_that_names_another_argument(define) -> None:
    entry = define(refusing(ValueError("`input` must not be negative")))
    breaks(laws.is_refused, entry, ILL_FORMED, "does not match")


def test_arguments_that_are_written_before_they_are_refused(define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        input[0] = 0
        return doubled(input, places)

    breaks(laws.is_refused, define(compute), ILL_FORMED, "`input` was written")


# Hostile content


def test_a_write_beyond_an_argument(define) -> None:
    def compute(input: Tensor, places: Tensor) -> Tensor:
        # The place that the content names, wherever that is: clamped to what the law guards.
        offset = places.storage_offset() + len(places)
        torch.as_strided(places, (1,), (1,), offset).fill_(7)
        return input * 2

    sample = Sample("own", (torch.randn(3, 5), torch.arange(200)[:4]))
    breaks(laws.survives_hostile_content, define(compute), sample, "`places` or what lies around")


def test_hostile_content_changes_what_no_other_argument_fixes(define) -> None:
    seen = []

    def compute(input: Tensor, places: Tensor) -> Tensor:
        seen.append((input.clone(), places.clone()))
        return input * 2

    laws.survives_hostile_content(define(compute), SAMPLE, rounds=20)
    assert all(torch.equal(numbers, SAMPLE.arguments[0]) for numbers, _ in seen)
    assert any(not torch.equal(places, SAMPLE.arguments[1]) for _, places in seen)


# The table


def test_an_operator_without_an_entry() -> None:
    before = registered()
    library = torch.library.Library("torch_truly_sparse", "FRAGMENT")
    try:
        library.define("unknown_to_the_table() -> int")
        assert registered() - before == {"unknown_to_the_table"}
    finally:
        library._destroy()
    assert registered() == before
