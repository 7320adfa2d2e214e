"""Builds the compiled operators: one shared library that no Python version is compiled into.

Everything declarative stands in pyproject.toml (what the package is) and setup.cfg (which files
belong to it); this file holds only what has to be computed.
"""

from __future__ import annotations

import platform
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

try:
    from torch.utils.cpp_extension import include_paths, library_paths
except ImportError as error:
    raise SystemExit(
        "torch_truly_sparse compiles against the PyTorch that it will run with, and found none "
        "here: install torch>=2.10 first, then `pip install --no-build-isolation .`"
    ) from error

LIBRARY = "torch_truly_sparse.libtorch_truly_sparse"
# Only the stable ABI of torch 2.10 is visible: the library runs with every later torch, too.
TORCH_FLOOR = "0x020A000000000000"


class BuildOperators(build_ext):
    """Names the library without a Python version, since it holds no Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Give the path of the library within the package."""
        suffix = ".dylib" if platform.system() == "Darwin" else ".so"
        return str(Path(*fullname.split("."))) + suffix


class PlatformWheel(bdist_wheel):
    """Tags the wheel py3-none-PLATFORM."""

    def get_tag(self) -> tuple[str, str, str]:
        """Give the Python, ABI and platform tags."""
        return ("py3", "none", super().get_tag()[2])


setup(
    ext_modules=[
        Extension(
            LIBRARY,
            sources=sorted(str(path) for path in Path("csrc/bindings").glob("*.cpp")),
            depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
            include_dirs=include_paths(),
            library_dirs=library_paths(),
            libraries=["torch_cpu"],
            define_macros=[("TORCH_TARGET_VERSION", TORCH_FLOOR)],
            extra_compile_args=["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wno-psabi"],
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildOperators, "bdist_wheel": PlatformWheel},
)
