from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest
import torch
from oracles import (
    BATCHES,
    TESTS,
    VALUE_DTYPES,
    Matrix,
    assert_product_close,
    random_mask,
)
from processes import run_python
from torch import Tensor

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


# Instruction sets: each is chosen at import, so each gets a Python of its own.


def check_products() -> dict[str, Tensor]:
    """Check every kernel against the oracle, for every tile width; return what should not vary."""
    mask = random_mask(37, 53, 700)
    mask[5], mask[:, 7] = False, False
    for dtype in VALUE_DTYPES:
        w = Matrix.of_mask(mask, dtype)
        for batch in BATCHES:
            x, dy = torch.randn(batch, 53, dtype=dtype), torch.randn(batch, 37, dtype=dtype)
            bias = torch.randn(37, dtype=dtype)
            y = ops.spmm(x, w.crow, w.col, w.values, bias)
            assert_product_close(y, x, w.dense.t(), plus=bias)
            for order in None, ops.TransposedOrder(w.ccol, w.row, w.permutation):
                dx = ops.spmm_transposed(dy, w.crow, w.col, w.values, 53, order)
                assert_product_close(dx, dy, w.dense)
            assert_product_close(ops.sddmm(dy, x, w.crow, w.col), dy.t(), x, at=mask)
            ones = torch.ones(1, batch)
            assert_product_close(ops.column_sum(dy)[None], ones, dy)
    return {
        "isa": tts.active_isa(),
        "sample": ops.sample(10**9, 5000, seed=1),
        "column_sum": ops.column_sum(torch.linspace(-1, 1, 3 * 77).reshape(3, 77)),
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_instruction_set_of_this_cpu_computes_the_same(name, tmp_path):
    code = (
        "import torch, test_library\n"
        "torch.manual_seed(0)\n"
        f"torch.save(test_library.check_products(), {str(tmp_path / 'results')!r})"
    )
    child = run_python("-c", code, cwd=TESTS, environment={"TORCH_TRULY_SPARSE_ISA": name})
    if child.returncode and name not in ("scalar", tts.active_isa()):
        assert "this CPU lacks these instructions" in child.stderr
        pytest.skip(f"this CPU has no {name}")
    assert child.returncode == 0, child.stderr
    results = torch.load(tmp_path / "results")
    torch.manual_seed(0)
    here = check_products()
    assert results["isa"] == name
    assert torch.equal(results["sample"], here["sample"])
    assert torch.equal(results["column_sum"], here["column_sum"])


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
def test_python_and_the_library_agree_from_which_batch_on_the_transposed_order_is_read(more):
    w = Matrix.of_mask(random_mask(6, 9, 20), torch.float32)
    order = ops.TransposedOrder(w.ccol, w.row.clone().fill_(-1), w.permutation)
    dy = torch.ones(ops.SCATTER_BATCH + more, 6)
    if not more:
        dx = ops.spmm_transposed(dy, w.crow, w.col, w.values, 9, order)
        assert_product_close(dx, dy, w.dense)
        return
    with pytest.raises(ValueError, match=r"`row_indices\[0\]` is -1"):
        ops.spmm_transposed(dy, w.crow, w.col, w.values, 9, order)
