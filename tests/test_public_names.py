"""What pages, examples, benchmarks and error messages name is public, and is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from types import ModuleType

import pytest

import torch_truly_sparse as tts
from torch_truly_sparse import estimators, plots
from torch_truly_sparse.integrations import lightning, logger, skorch, transformers

ROOT = Path(__file__).parent.parent
PACKAGE = tts.__name__
MODULES = {
    PACKAGE: tts,
    f"{PACKAGE}.estimators": estimators,  # imported by those who have scikit-learn
    f"{PACKAGE}.plots": plots,  # by those who have matplotlib
    f"{PACKAGE}.integrations.logger": logger,
    f"{PACKAGE}.integrations.lightning": lightning,  # by those who have Lightning
    f"{PACKAGE}.integrations.skorch": skorch,
    f"{PACKAGE}.integrations.transformers": transformers,
    **{f"{PACKAGE}.{n}": m for n in tts.__all__ if isinstance(m := getattr(tts, n), ModuleType)},
}
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("*/README.md")])
PROGRAMS = sorted(p for f in ("examples", "benchmarks") for p in (ROOT / f).rglob("*.py"))
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))

# What measures the operators themselves must name them.
ALLOWED = {f"benchmarks/{name}.py": {f"{PACKAGE}.ops"} for name in ("products", "small_network")}

_PATH = re.compile(rf"\b(?:tts|{PACKAGE})((?:\.[A-Za-z]\w*)+)")
_IMPORT = re.compile(
    rf"^(?:>>> |\.\.\. )?(from {PACKAGE}[\w.]* import .+|import {PACKAGE}\S*)$", re.M
)


def public_names(module: ModuleType) -> set[str]:
    """What a module offers: its `__all__`, or else what it defines without an underscore."""
    if hasattr(module, "__all__"):
        return {*module.__all__, "__version__"} if module is tts else set(module.__all__)
    own = {name for name, thing in vars(module).items() if _is_from(thing, module)}
    return {name for name in own if not name.startswith("_")}


def _is_from(thing: object, module: ModuleType) -> bool:
    return getattr(thing, "__module__", None) == module.__name__


def private_imports(source: str) -> Iterator[str]:
    """Yield the imports of a program that reach beyond the public modules and their names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE and alias.name not in MODULES:
                    yield alias.name
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            module = MODULES.get(str(node.module))
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name not in MODULES and (
                    module is None or alias.name not in public_names(module)
                ):
                    yield name


def private_paths(text: str) -> Iterator[str]:
    """Yield the dotted names (`tts.rules.RandomRegrow`) that lead to nothing public."""
    for match in _PATH.finditer(text):
        thing: object = tts
        names = match[1][1:].split(".")
        for length in range(len(names), 0, -1):  # a module that the face does not import
            if module := MODULES.get(".".join([PACKAGE, *names[:length]])):
                thing, names = module, names[length:]
                break
        for name in names:
            if isinstance(thing, ModuleType):
                if name not in public_names(thing):
                    yield match[0]
                    break
            elif not hasattr(thing, name):
                yield match[0]
                break
            thing = getattr(thing, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_name_public_things_only(page: Path) -> None:
    text = page.read_text()
    imports = "\n".join(match[1] for match in _IMPORT.finditer(text))
    assert not [*private_imports(imports), *private_paths(_without_files(text))]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_and_benchmarks_use_public_things_only(path: Path) -> None:
    source = path.read_text()
    found = {*private_imports(source), *private_paths(_without_files(source))}
    assert found == ALLOWED.get(str(path.relative_to(ROOT)), set())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_errors_name_public_things_only(path: Path) -> None:
    assert not list(private_paths("\n".join(re.findall(r"\btts\.[\w.]+", path.read_text()))))


def _without_files(text: str) -> str:
    """Leave out what looks like a dotted name and is none: files, formats, tracebacks."""
    files = rf"[\w/]*{PACKAGE}/[\w./]*|{PACKAGE}\.benchmarks/\d"
    return re.sub(rf"{files}|^{PACKAGE}[\w.]*Error:", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_what_it_says(name: str) -> None:
    module = MODULES[name]
    assert public_names(module)
    assert not [each for each in public_names(module) if not hasattr(module, each)]


def test_each_name_of_evolution_has_one_place() -> None:
    places = [tts, tts.evolution, tts.rules, tts.schedules, tts.checkpoint, tts.distributed]
    for one, other in combinations(places, 2):
        assert not public_names(one) & public_names(other), (one.__name__, other.__name__)


def test_the_scan_finds_what_it_should() -> None:
    program = (
        f"import {PACKAGE}.rules\nfrom {PACKAGE}.nn import AllReLU\n"
        f"from {PACKAGE} import sparsify\n"
        f"from {PACKAGE}.evolution.prune import smallest\nfrom {PACKAGE} import Linear\n"
        f"import {PACKAGE}._library\n"
    )
    assert set(private_imports(program)) == {
        f"{PACKAGE}.evolution.prune.smallest",
        f"{PACKAGE}.Linear",
        f"{PACKAGE}._library",
    }
    text = "`tts.rules.RandomRegrow`, tts.SparseEvolution.arm, tts.Cosine(0.3), tts.nn.init.Normal"
    assert list(private_paths(text)) == ["tts.Cosine", "tts.nn.init.Normal"]
