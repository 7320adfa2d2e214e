"""Every block of Python on every page runs as it is pasted, block after block."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from compilers import COMPILER
from processes import run_python

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text())]
# What a page needs beside torch and numpy; and how else its code is started.
NEEDS = {
    "estimators.md": ["sklearn"],
    "integrations.md": ["tensorboard", "lightning", "skorch", "transformers", "accelerate"],
    "interop.md": ["scipy"],
    "plots.md": ["matplotlib"],
}
ON_RANKS = {"distributed.md"}
COMPILES = {"serving.md"}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs_as_it_is_pasted(page: Path, tmp_path: Path) -> None:
    for library in NEEDS.get(page.name, []):
        pytest.importorskip(library)
    if page.name in COMPILES and COMPILER is None:
        pytest.skip("no C++ compiler")
    program = tmp_path / "pasted.py"
    program.write_text("\n".join(BLOCK.findall(page.read_text())))
    start = ["-m", "torch.distributed.run", "--standalone"] if page.name in ON_RANKS else []
    done = run_python(*start, str(program), cwd=tmp_path, environment={"MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stderr


def test_code_is_found() -> None:
    assert {"README.md", "evolution.md", "integrations.md"} <= {page.name for page in WITH_CODE}
    assert ON_RANKS | COMPILES | set(NEEDS) <= {page.name for page in WITH_CODE}
