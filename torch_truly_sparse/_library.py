"""Loads the compiled operators into `torch.ops.torch_truly_sparse`."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

_SUFFIX = ".dylib" if platform.system() == "Darwin" else ".so"
_PATH = Path(__file__).with_name("libtorch_truly_sparse" + _SUFFIX)
_REMEDY = (
    "Build it with `pip install --no-build-isolation .` in the source tree (a C++17 compiler, "
    f"GCC or Clang, and torch>=2.10 are needed; this is torch {torch.__version__})."
)

if not _PATH.is_file():
    raise ImportError(
        f"torch_truly_sparse: the compiled operators are missing ({_PATH}). {_REMEDY}"
    )
try:
    torch.ops.load_library(str(_PATH))
except OSError as error:
    raise ImportError(
        f"torch_truly_sparse: the compiled operators cannot be loaded: {error}. {_REMEDY}"
    ) from error

operators = torch.ops.torch_truly_sparse


def active_isa() -> str:
    """Name the instruction set that the kernels run in.

    The widest set of this CPU is chosen once, at import. The environment variable
    `TORCH_TRULY_SPARSE_ISA` overrides it: `scalar` (the baseline of the architecture), `avx2`,
    `avx512`; `neon` on Arm.

    Returns:
        One of these names.

    Raises:
        ValueError: the variable names an unknown instruction set, or one that this CPU lacks.
            As the choice is made at import, importing the package raises it.
    """
    name: str = operators.active_isa()
    return name


active_isa()
