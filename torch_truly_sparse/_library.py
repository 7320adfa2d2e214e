"""Loads the compiled operators into `torch.ops.torch_truly_sparse`."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch

_SUFFIX = ".dylib" if platform.system() == "Darwin" else ".so"
_PATH = Path(__file__).with_name("libtorch_truly_sparse" + _SUFFIX)
_REMEDY = (
    "Build it with `pip install --no-build-isolation .` in the source tree (GCC 12 or Clang 13, or "
    f"a newer one, and torch>=2.10 are needed; this is torch {torch.__version__})."
)


def _hidden_installation() -> Path | None:
    """Return the installed package that this folder hides by coming first on `sys.path`, if any."""
    for entry in sys.path:
        package = Path(entry) / _PATH.parent.name
        if (package / _PATH.name).is_file():
            return package
    return None


if not _PATH.is_file():
    _hidden = _hidden_installation()
    raise ImportError(
        f"torch_truly_sparse: the compiled operators are missing ({_PATH}). "
        + (
            f"This source folder hides the package that is installed in {_hidden}: run Python "
            "from another folder, or install this one with "
            "`pip install --no-build-isolation --editable .`"
            if _hidden
            else _REMEDY
        )
    )
try:
    torch.ops.load_library(str(_PATH))
except OSError as error:
    raise ImportError(
        f"torch_truly_sparse: the compiled operators cannot be loaded: {error}. {_REMEDY}"
    ) from error

operators: Any = torch.ops.torch_truly_sparse


class _WithTypedErrors:
    """The operators, whose errors have the types that C++ gave them.

    torch up to 2.13 raises ValueError for a refused argument and MemoryError where memory lacks;
    2.15 raises RuntimeError for both.
    """

    def __getattr__(self, name: str) -> Any:
        operator = _Operator(getattr(torch.ops.torch_truly_sparse, name))
        setattr(self, name, operator)  # the next look finds it at once
        return operator


class _Operator:
    """An operator of torch, which it hands all questions but calls on to."""

    def __init__(self, operator: Any) -> None:
        self._operator = operator

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return self._operator(*arguments, **named)
        try:
            return self._operator(*arguments, **named)
        except RuntimeError as error:
            kind = _kind_of(str(error))
            if kind is None:
                raise
            raise kind(str(error)) from None


def _kind_of(text: str) -> type[Exception] | None:
    """Return the type that an error of an operator should have; None where torch raised it."""
    if text == "std::bad_alloc":
        return MemoryError
    return ValueError if text == torch.ops.torch_truly_sparse.last_refusal() else None


def _loses_types() -> bool:
    """Ask an operator for what it refuses, and see with what."""
    try:
        operators.compress(torch.empty(0, device="cpu"), 0, 0)
    except ValueError:
        return False
    except RuntimeError:
        return True
    raise AssertionError("`compress` takes a vector for coordinates")


def active_isa() -> str:
    """Return the name of the instruction set that the kernels use.

    The widest set of this CPU is chosen once, at import. The environment variable
    `TORCH_TRULY_SPARSE_ISA` overrides it: `scalar` (the baseline of the architecture), `avx2`,
    `avx512`; `neon` on Arm.

    Returns:
        `"scalar"`, `"avx2"`, `"avx512"` or `"neon"`.

    Raises:
        ValueError: the variable names an unknown instruction set, or one that this CPU lacks. The
            choice is made at import, so that importing the package raises this error.
    """
    name: str = operators.active_isa()
    return name


try:
    active_isa()
except RuntimeError as error:  # of torch that loses types: see _WithTypedErrors
    raise ValueError(str(error)) from None
if _loses_types():
    operators = _WithTypedErrors()
