"""Every law of laws.py, for every operator of the table (operators.py)."""

from __future__ import annotations

import functools
import json
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any

import laws
import pytest
import torch
from operator_entry import Operator, Sample
from operators import CONSTANTS, OPERATORS
from oracles import TESTS
from processes import run_python
from torch import Tensor

from torch_truly_sparse import active_isa

X86 = platform.machine() in ("x86_64", "AMD64")
INSTRUCTION_SETS = ["scalar", "avx2", "avx512"] if X86 else ["scalar", "neon"]


def takes_tensors(entry: Operator) -> bool:
    return any(isinstance(a, Tensor) for a in entry.samples()[0].arguments)


def each(condition: Callable[[Operator], Any] = lambda _: True) -> pytest.MarkDecorator:
    """Parametrise a test over the operators that a law says something about."""
    chosen = {name: entry for name, entry in OPERATORS.items() if condition(entry)}
    return pytest.mark.parametrize("entry", chosen.values(), ids=chosen.keys())


def thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """A part of many samples; 7 has no factor in common with the turns of the tables."""
    return samples[::7] if len(samples) > 900 else samples


# What is registered


def registered() -> set[str]:
    names = torch._C._dispatch_get_all_op_names()
    return {
        name.removeprefix("torch_truly_sparse::")
        for name in names
        if name.startswith("torch_truly_sparse::")
    }


def test_every_registered_operator_is_in_the_table_and_nothing_else() -> None:
    assert registered() == OPERATORS.keys() | CONSTANTS.keys(), (
        "add an entry to OPERATORS or CONSTANTS (tests/operators.py) for a new operator"
    )
    assert not OPERATORS.keys() & CONSTANTS.keys()


@pytest.mark.parametrize("constant", CONSTANTS.values(), ids=CONSTANTS.keys())
def test_operators_without_tensors(constant: Any) -> None:
    answer = getattr(torch.ops.torch_truly_sparse, constant.name)(*constant.arguments)
    assert constant.accepts(answer), answer


@each()
def test_names_of_the_table_are_those_of_the_schema(entry: Operator) -> None:
    assert entry.arbitrary <= set(entry.names)
    for sample in [*entry.samples(), *entry.large()]:
        assert len(sample.arguments) <= len(entry.names)


# Numbers


def computed(name: str) -> str:
    """Return a digest of all results, or "right"; raise what is wrong with them."""
    laws.computes_right(OPERATORS[name])
    return laws.digest(OPERATORS[name]) if OPERATORS[name].portable else "right"


computed_here = functools.cache(computed)


@each()
def test_compiled_form_is_right(entry: Operator) -> None:
    assert computed_here(entry.name)


@each(lambda entry: entry.oracle)
def test_plain_torch_form_is_right(entry: Operator) -> None:
    laws.apply(laws.has_true_reference, entry, thinned(entry.samples()))


# Registration


@each()
def test_opcheck(entry: Operator) -> None:
    laws.apply(laws.passes_opcheck, entry, entry.few())


@each(lambda entry: takes_tensors(entry) and not entry.data_dependent)
def test_meta_form(entry: Operator) -> None:
    laws.apply(laws.has_true_meta_form, entry, entry.samples())


@each()
def test_fake_form(entry: Operator) -> None:
    laws.apply(laws.has_true_fake_form, entry, entry.few())


# Memory


@each(takes_tensors)
def test_any_layout_is_read(entry: Operator) -> None:
    laws.apply(laws.reads_any_layout, entry, thinned(entry.samples()))


@each()
def test_arguments_are_left_alone(entry: Operator) -> None:
    laws.apply(laws.leaves_its_arguments_alone, entry, [*entry.samples(), *entry.large()])


@each()
def test_every_entry_is_written(entry: Operator) -> None:
    laws.apply(laws.writes_every_entry, entry, [*entry.samples(), *entry.large()])


# Threads


@each(lambda entry: entry.split_from)
def test_bits_do_not_depend_on_the_number_of_threads(entry: Operator) -> None:
    laws.apply(laws.has_the_same_bits_on_any_threads, entry, entry.large())


# Instruction sets: this process runs in one of them; a process for each of the others computes the
# whole table.


@functools.cache
def outcomes_in(isa: str) -> dict[str, str]:
    """What each operator computed in an instruction set, or nothing if this CPU lacks the set."""
    environment = {"TORCH_TRULY_SPARSE_ISA": isa}
    child = run_python(__file__, isa, cwd=TESTS, environment=environment)
    if "this CPU lacks these instructions" in child.stderr:
        assert isa != "scalar"
        return {}
    assert child.returncode == 0, child.stderr
    found: dict[str, str] = json.loads(child.stdout)
    return found


@each()
@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set_is_right(isa: str, entry: Operator) -> None:
    here = computed_here(entry.name)
    if isa == active_isa():
        return
    outcomes = outcomes_in(isa)
    if not outcomes:
        pytest.skip(f"this CPU has no {isa}")
    assert outcomes[entry.name] == here


def test_a_process_in_another_instruction_set_than_asked_for_is_noticed() -> None:
    environment = {"TORCH_TRULY_SPARSE_ISA": "scalar"}
    child = run_python(__file__, INSTRUCTION_SETS[1], cwd=TESTS, environment=environment)
    assert child.returncode != 0
    assert f"AssertionError: scalar runs, not {INSTRUCTION_SETS[1]}" in child.stderr


# Refusals


@each()
def test_ill_formed_arguments_are_refused(entry: Operator) -> None:
    laws.apply(laws.is_refused, entry, entry.ill_formed())


def outcome(name: str) -> str:
    try:
        return computed(name)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    laws.runs_in(sys.argv[1])
    print(json.dumps({name: outcome(name) for name in OPERATORS}))
