"""setup.py compiles side by side, says so, and shows what a compiler says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from compilers import needs_compiler
from processes import run_python

ROOT = Path(__file__).parent.parent
GOOD = "int number_{} = 1;\n"
BAD = "int number_{} = no_such_name;\n"
WARNS = "int number_{}(int unused) {{ return 1; }}\n"

pytestmark = needs_compiler


def build(folder: Path, files: dict[str, str], **environment: str) -> subprocess.CompletedProcess:
    """Build the operators of a source folder that holds other, tiny files."""
    for name in "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE":
        shutil.copy(ROOT / name, folder)
    (folder / "torch_truly_sparse").mkdir()
    (folder / "torch_truly_sparse" / "__init__.py").touch()
    for name, text in files.items():
        path = folder / "csrc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(path.stem))
    return run_python("setup.py", "build_ext", "--inplace", cwd=folder, environment=environment)


def libraries(folder: Path) -> list[Path]:
    return list(folder.glob("torch_truly_sparse/libtorch_truly_sparse.*"))


@pytest.mark.parametrize(("jobs", "cores"), [("1", "1 core(s)"), ("2", "2 core(s)")])
def test_it_compiles_every_file_and_says_on_how_many_cores(tmp_path, jobs, cores):
    files = {"kernels/a.cpp": GOOD, "bindings/b.cpp": GOOD, "bindings/c.cpp": GOOD}
    built = build(tmp_path, files, MAX_JOBS=jobs)
    assert built.returncode == 0, built.stderr
    assert f"compiling 3 files of operators on {cores}" in built.stdout
    assert libraries(tmp_path)
    assert {path.stem for path in tmp_path.rglob("*.o")} == {"a", "b", "c"}


def test_one_file_that_does_not_compile_fails_the_build_and_is_named(tmp_path):
    built = build(tmp_path, {"kernels/a.cpp": GOOD, "bindings/b.cpp": BAD}, MAX_JOBS="2")
    assert built.returncode != 0
    assert "no_such_name" in built.stderr
    assert "b.cpp" in built.stderr
    assert not libraries(tmp_path)


@pytest.mark.parametrize(("variable", "fails"), [("", False), ("1", True)])
def test_a_warning_is_an_error_only_where_the_variable_says_so(tmp_path, variable, fails):
    built = build(tmp_path, {"kernels/a.cpp": WARNS}, TORCH_TRULY_SPARSE_WERROR=variable)
    assert (built.returncode != 0) == fails
    assert "unused" in built.stderr
