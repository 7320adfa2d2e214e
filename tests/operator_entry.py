"""What the table of operators (operators.py) says about one operator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_truly_sparse._library import operators as registered

BINDINGS = Path(__file__).parent.parent / "csrc" / "bindings"


@dataclass(frozen=True)
class Sample:
    """Well-formed arguments of an operator, in the order of its schema."""

    label: str
    arguments: tuple[Any, ...]
    # What the operator compares with a threshold before it splits work among threads; 0 in a small
    # sample.
    work: int = 0
    # Whether the oracle and the plain-torch form can compute it at a bearable price.
    by_oracle: bool = True
    by_reference: bool = True


@dataclass(frozen=True)
class IllFormed:
    """Arguments that an operator must refuse, with an error whose text matches `text`."""

    label: str
    arguments: tuple[Any, ...]
    text: str
    error: type[Exception] = ValueError


def no_samples() -> Sequence[Any]:
    return ()


@dataclass(frozen=True)
class Operator:
    """One registered operator: its samples, what it must compute, and what it must refuse."""

    name: str
    # Shapes, dtypes and densities in all their kinds, each small.
    samples: Callable[[], Sequence[Sample]]
    # A few of the small ones, one of each kind, for laws that take a tenth of a second a sample.
    few: Callable[[], Sequence[Sample]]
    ill_formed: Callable[[], Sequence[IllFormed]]
    # Samples whose work the operator splits among threads, unless it never does.
    large: Callable[[], Sequence[Sample]] = no_samples
    # The operator does not split work of less than this.
    split_from: int = 0
    # The plain-torch form that is registered for other devices.
    reference: Callable[..., Any] | None = None
    # The result by other means: dense matrices in float64, or plain Python.
    oracle: Callable[..., Any] | None = None
    # Raises AssertionError if the results (last argument) cannot follow from the arguments; for an
    # operator without a reference.
    check: Callable[..., None] | None = None
    # The number of terms of the longest sum in each result. None: the result has no rounding, and
    # must equal reference and oracle to the bit.
    terms: Callable[..., tuple[int, ...]] | None = None
    # Arguments that may hold any numbers whatever the other arguments are.
    arbitrary: frozenset[str] = field(default_factory=frozenset)
    # The results are the same to the bit in every instruction set, although no reference says so.
    portable: bool = False
    # The sizes of the results follow from the content of the arguments.
    data_dependent: bool = False
    # Arguments that the operator changes; `compute` gives it copies, and returns them as well.
    writes: frozenset[str] = frozenset()
    namespace: str = "torch_truly_sparse"
    # Makes the operator's memory hold 0xFF before the operator writes its results there, or not.
    poison: Callable[[bool], object] = registered.poison_results

    @property
    def overload(self) -> Any:
        """The callable that torch registered."""
        return getattr(getattr(torch.ops, self.namespace), self.name).default

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arguments, from the schema."""
        return tuple(argument.name for argument in self.overload._schema.arguments)

    def call(self, *arguments: Any) -> tuple[Tensor, ...]:
        """Call the registered operator; one result is a tuple of one."""
        return as_results(self.overload(*arguments))

    def compute(self, *arguments: Any) -> tuple[Tensor, ...]:
        """Return what the operator returns, and after it what it makes of what it writes."""
        given, written = self.copied(arguments)
        return (*self.call(*given), *written)

    def copied(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Tensor]]:
        """Return the arguments with copies of those that are written, and these copies."""
        given, written = list(arguments), []
        for i, name in enumerate(self.names[: len(given)]):
            if name in self.writes and isinstance(given[i], Tensor):
                given[i] = given[i].clone()
                written.append(given[i])
        return given, written


@dataclass(frozen=True)
class Constant:
    """A registered operator without tensors: what it is called with and what it must answer."""

    name: str
    arguments: tuple[Any, ...]
    accepts: Callable[[Any], bool]


def as_results(results: Any) -> tuple[Tensor, ...]:
    return (results,) if isinstance(results, Tensor) else tuple(results)


def constant_of(header: str, name: str) -> int:
    """Read `constexpr int64_t name = ...` from a header: a number, or a shift of two numbers."""
    text = (BINDINGS / header).read_text()
    found = re.search(rf"constexpr int64_t {name} = (\d+)(?: << (\d+))?;", text)
    assert found, f"{header} has no constant {name}"
    return int(found[1]) << int(found[2] or 0)


SERIAL_VISITS = constant_of("plan.h", "serial_visits")
PIECE = constant_of("pieces.h", "piece_length")
