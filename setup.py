"""Builds the compiled operators: one shared library that no Python version is compiled into.

Everything declarative stands in pyproject.toml (what the package is) and setup.cfg (which files
belong to it); this file holds only what has to be computed.
"""

from __future__ import annotations

import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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

# What one core takes to compile all files, and the longest one: measured, GCC 12.
SECONDS, LONGEST = 100, 20

WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi"]  # vectors are passed between our own functions only
if os.environ.get("TORCH_TRULY_SPARSE_WERROR") == "1":
    # Set by `make`, where the compiler is known. An installation elsewhere must not fail because
    # a newer compiler has thought of another warning.
    WARNINGS.append("-Werror")

# Set by `make sanitize`: errors of memory and undefined behaviour end the program at once.
SANITIZERS = []
if os.environ.get("TORCH_TRULY_SPARSE_SANITIZE") == "1":
    SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

# Set by `make wheel`: the library loads on every Linux since 2018 (glibc 2.28), see csrc/manylinux.
MANYLINUX = os.environ.get("TORCH_TRULY_SPARSE_MANYLINUX") == "1"
OLD_LIBRARIES = Path("csrc/manylinux")


def sources() -> list[str]:
    """List the files to compile."""
    files = (path for path in Path("csrc").rglob("*.cpp"))
    return sorted(str(path) for path in files if MANYLINUX or path.parent != OLD_LIBRARIES)


def cores() -> int:
    """Give the number of files that are compiled side by side."""
    if jobs := os.environ.get("MAX_JOBS"):
        return max(1, int(jobs))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class BuildOperators(build_ext):
    """Compiles the files side by side, and names the library without a Python version."""

    def build_extension(self, ext: Extension) -> None:
        """Compile on all cores (MAX_JOBS limits them) and link."""
        compile_files, jobs = self.compiler.compile, min(cores(), len(ext.sources))

        def compile_side_by_side(sources: list[str], **settings: Any) -> list[str]:
            print(
                f"compiling {len(sources)} files of operators on {jobs} core(s), "
                f"about {round(max(SECONDS / jobs, LONGEST), -1):.0f} seconds",
                flush=True,
            )
            # The largest files come first: no core is left with one of them at the end.
            sources = sorted(sources, key=lambda source: "kernels" not in Path(source).parts)
            for source in sources:
                Path(settings["output_dir"], source).parent.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(jobs) as pool:
                files = [pool.submit(compile_files, [source], **settings) for source in sources]
                try:
                    return [compiled for file in files for compiled in file.result()]
                except BaseException:  # the compiler has said on stderr what is wrong
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise

        self.compiler.compile = compile_side_by_side
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_files

    def get_ext_filename(self, fullname: str) -> str:
        """Give the path of the library within the package."""
        suffix = ".dylib" if platform.system() == "Darwin" else ".so"
        return str(Path(*fullname.split("."))) + suffix


class PlatformWheel(bdist_wheel):
    """Tags the wheel py3-none-PLATFORM."""

    def get_tag(self) -> tuple[str, str, str]:
        """Give the Python, ABI and platform tags."""
        platform_tag = super().get_tag()[2]
        if MANYLINUX:
            platform_tag = platform_tag.replace("linux_", "manylinux_2_28_", 1)
        return ("py3", "none", platform_tag)


setup(
    ext_modules=[
        Extension(
            LIBRARY,
            sources=sources(),
            depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
            library_dirs=library_paths(),
            libraries=["torch_cpu"],
            define_macros=[("TORCH_TARGET_VERSION", TORCH_FLOOR)],
            extra_compile_args=[
                *("-std=c++17", "-fvisibility=hidden", "-fno-math-errno"),
                *(("-O1", "-g1", "-fno-omit-frame-pointer") if SANITIZERS else ("-O3", "-g0")),
                *SANITIZERS,
                *WARNINGS,
                *(("-include", str(OLD_LIBRARIES / "old_libc.h")) if MANYLINUX else ()),
                # As system headers, torch's own warnings stay silent.
                *(f"-isystem{folder}" for folder in include_paths()),
            ],
            extra_link_args=[
                *SANITIZERS,
                *((f"-Wl,--version-script={OLD_LIBRARIES / 'hidden.map'}",) if MANYLINUX else ()),
            ],
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildOperators, "bdist_wheel": PlatformWheel},
)
