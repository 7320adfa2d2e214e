from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import pytest
import torch
from oracles import (
    TESTS,
    Matrix,
    assert_product_close,
    random_mask,
)
from processes import run_python

import torch_truly_sparse as tts
from torch_truly_sparse import ops

PACKAGE = Path(tts.__file__).parent
NAMES = {
    "x86_64": ["scalar", "avx2", "avx512"],
    "AMD64": ["scalar", "avx2", "avx512"],
    "arm64": ["scalar", "neon"],
    "aarch64": ["scalar", "neon"],
}.get(platform.machine(), ["scalar"])


@pytest.fixture
def package_copy(tmp_path: Path) -> Path:
    return shutil.copytree(
        PACKAGE, tmp_path / "torch_truly_sparse", ignore=shutil.ignore_patterns("*.so", "*.dylib")
    )


def _import_error(copy: Path, installed: Path | None = None) -> str:
    """Import a copy without operators, before an installation in a folder or none at all."""
    code = (
        "import pathlib, sys\n"
        "sys.path = [p for p in sys.path if not pathlib.Path(p, 'torch_truly_sparse').exists()]\n"
        f"sys.path[:0] = {['.', str(installed)] if installed else ['.']}\n"
        "try: import torch_truly_sparse\n"
        "except ImportError as error: print('ImportError:', error)"
    )
    child = run_python("-c", code, cwd=copy.parent)
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_missing_operators_are_an_import_error_that_says_what_to_run(package_copy):
    text = _import_error(package_copy)
    assert text.startswith("ImportError: torch_truly_sparse: the compiled operators are missing")
    assert str(package_copy) in text
    assert "pip install --no-build-isolation ." in text


def test_a_source_folder_that_hides_an_installation_says_so(package_copy, tmp_path):
    installed = tmp_path / "site-packages" / "torch_truly_sparse"
    installed.mkdir(parents=True)
    (installed / next(PACKAGE.glob("libtorch_truly_sparse.*")).name).touch()
    text = _import_error(package_copy, installed.parent)
    assert text.startswith("ImportError: torch_truly_sparse: the compiled operators are missing")
    assert f"This source folder hides the package that is installed in {installed}" in text
    assert "run Python from another folder" in text
    assert "pip install --no-build-isolation --editable ." in text


def test_corrupt_operators_are_an_import_error_that_says_what_to_run(package_copy):
    (package_copy / next(PACKAGE.glob("libtorch_truly_sparse.*")).name).write_bytes(b"\x7fELF")
    text = _import_error(package_copy)
    assert text.startswith("ImportError: torch_truly_sparse: the compiled operators cannot be load")
    assert "pip install --no-build-isolation ." in text


# Instruction sets: each is chosen at import, so each gets a Python of its own. That all of them
# compute the same is a law of operators (test_operator_laws.py).


def test_unknown_instruction_set_is_a_value_error_at_import():
    environment = {"TORCH_TRULY_SPARSE_ISA": "mmx"}
    child = run_python("-c", "import torch_truly_sparse", cwd=TESTS, environment=environment)
    assert child.returncode == 1
    last = child.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: TORCH_TRULY_SPARSE_ISA=mmx is not an instruction set")
    assert "scalar" in last


def test_empty_variable_means_the_widest_set():
    code = "import torch_truly_sparse as tts; print(tts.active_isa())"
    empty = run_python("-c", code, cwd=TESTS, environment={"TORCH_TRULY_SPARSE_ISA": ""})
    assert empty.stdout.strip() in NAMES


# What the library decides, and Python must know.


@pytest.mark.parametrize("more", [0, 1])
def test_python_and_the_library_agree_from_which_batch_on_the_order_by_columns_is_read(more):
    w = Matrix.of_mask(random_mask(6, 9, 20), torch.float32)
    damaged = w.parts._replace(row_indices=w.row.clone().fill_(-1))
    dy = torch.ones(ops.SCATTER_BATCH + more, 6)
    if not more:
        assert_product_close(ops.spmm_transposed(damaged, dy, w.values), dy, w.dense)
        return
    with pytest.raises(ValueError, match=r"`row_indices\[0\]` is -1"):
        ops.spmm_transposed(damaged, dy, w.values)


REGISTERED = torch.ops.torch_truly_sparse


class Untyped:
    """Operators as torch 2.15 has them: every error is a RuntimeError."""

    def __getattr__(self, name):
        operator = getattr(REGISTERED, name)

        def call(*arguments):
            try:
                return operator(*arguments)
            except (ValueError, MemoryError) as error:
                raise RuntimeError(str(error)) from None

        return call


def test_errors_keep_their_types_where_torch_loses_them(monkeypatch):
    library = sys.modules["torch_truly_sparse._library"]
    monkeypatch.setattr(torch.ops, "torch_truly_sparse", Untyped())
    typed = library._WithTypedErrors()
    vector = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="`indices` must have 2 dimension") as raised:
        typed.compress(vector, 3, 3)
    assert typed.last_refusal() == str(raised.value)
    with pytest.raises(RuntimeError, match="Expected a value of type"):
        typed.compress("text", 3, 3)
    assert library._kind_of("std::bad_alloc") is MemoryError
    indices = torch.tensor([[0, 2], [1, 0]])
    assert typed.compress(indices, 3, 3).tolist() == [0, 1, 1, 2]


def test_types_are_kept_by_torch_or_by_the_library():
    library = sys.modules["torch_truly_sparse._library"]
    with pytest.raises(ValueError, match="must have 2 dimension"):
        library.operators.compress(torch.zeros(3, dtype=torch.int64), 3, 3)
