"""A compiler that is too old is named at once, not by a page of errors in a kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = '#include "csrc/kernels/compiler.h"\nint compiled;\n'
NAMES = os.environ.get("CXX", "c++"), "g++", "clang++"
COMPILER = next(filter(None, map(shutil.which, NAMES)), None)

GCC = ["-U__clang__", "-U__GNUC__", "-D__GNUC__={}"]
CLANG = ["-U__clang__", "-D__clang__", "-U__clang_major__", "-D__clang_major__={}"]


def compile_as(flags: list[str], version: int) -> subprocess.CompletedProcess[str]:
    """Compile the two lines with the version macros of another compiler."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    return subprocess.run(
        [COMPILER, *(flag.format(version) for flag in flags), "-fsyntax-only", "-x", "c++", "-"],
        input=SOURCE,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("flags", "version"), [(GCC, 11), (GCC, 9), (CLANG, 12), (CLANG, 5)])
def test_an_old_compiler_is_told_what_is_needed(flags, version):
    refused = compile_as(flags, version)
    assert refused.returncode != 0
    assert "needs GCC 12 or Clang 13, or a newer one" in refused.stderr


@pytest.mark.parametrize(("flags", "version"), [([], 0), (GCC, 12), (CLANG, 13), (CLANG, 22)])
def test_a_new_compiler_is_accepted(flags, version):
    accepted = compile_as(flags, version)
    assert accepted.returncode == 0, accepted.stderr
