"""The import graph keeps the rooms of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "torch_truly_sparse"

# What each room may import from the package; its own modules always.
ANYWHERE = {"_arguments", "_torch_internals"}  # these import nothing of the package
ROOMS = {
    "_arguments": set(),
    "_torch_internals": set(),
    "_library": set(),
    "_wrappers": set(),
    "_module_names": {"_wrappers"},
    "ops": {"_library"},
    "topology": {"ops"},
    "functional": {"ops", "topology", "nn"},
    "nn": {"ops", "topology", "functional"},
    "optim": {"ops"},
    "schedules": set(),
    "evolution": {"ops", "topology", "nn", "schedules", "_module_names", "_wrappers"},
    "rules": {"evolution", "topology"},
    "convert": {"topology", "nn", "_module_names", "_wrappers"},
    "interop": {"topology", "nn"},
    "distributed": {"evolution", "nn", "ops", "topology", "_wrappers"},
    "checkpoint": {"_wrappers"},
    "integrations": {"convert", "distributed", "evolution", "nn", "optim"},
    "plots": {"convert", "evolution", "nn"},
    "estimators": {"evolution", "functional", "nn", "rules", "topology"},
}
# What users need not install beside torch, a room may not import at its top.
INSTALLED = {"torch", "numpy", *sys.stdlib_module_names}
# A room that says in an extra what it needs: importing the package does not import it.
EXTRAS = {
    "estimators": {"sklearn", "scipy"},
    "integrations": {"lightning", "skorch", "transformers"},
    "plots": {"matplotlib"},
}

MODULES = sorted(PACKAGE.rglob("*.py"))
each_module = pytest.mark.parametrize(
    "path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES]
)


def room_of(path: Path) -> str:
    """The part of the package that a file belongs to; `__init__` for its face."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[tuple[str, ...]]:
    """Absolute names of all that a file imports: ("torch_truly_sparse", "ops", "spmm")."""
    package = ("torch_truly_sparse", *path.relative_to(PACKAGE).parts[:-1])
    return imported_names(path.read_text(), package)


def imported_names(source: str, package: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            names |= {(*base, alias.name) for alias in node.names}
    return names


def rooms_entered(names: set[tuple[str, ...]]) -> set[str]:
    return {name[1] if len(name) > 1 else "" for name in names if name[0] == "torch_truly_sparse"}


@each_module
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} is not in the table of rooms"
    assert rooms_entered(imports(path)) <= ROOMS[room] | {room} | ANYWHERE


@each_module
def test_modules_import_at_their_top_only_what_is_installed(path):
    tops = ast.parse(path.read_text()).body
    source = "\n".join(ast.unparse(n) for n in tops if isinstance(n, ast.Import | ast.ImportFrom))
    package = ("torch_truly_sparse", *path.relative_to(PACKAGE).parts[:-1])
    allowed = INSTALLED | {"torch_truly_sparse"} | EXTRAS.get(room_of(path), set())
    assert {name[0] for name in imported_names(source, package)} <= allowed


def import_graph(folder: Path, root: Path) -> dict[str, set[str]]:
    """The modules of a folder, and which of them each imports, at its top or in a function."""
    parts = {path: path.relative_to(root).with_suffix("").parts for path in folder.rglob("*.py")}
    imported = {
        ".".join(name).removesuffix(".__init__"): imported_names(path.read_text(), name[:-1])
        for path, name in parts.items()
    }
    graph = {}
    for module, names in imported.items():
        # `from .nn import X` enters nn.X where that is a module, otherwise nn.
        whole = {".".join(name) for name in names}
        entered = {name if name in imported else name.rpartition(".")[0] for name in whole}
        graph[module] = entered & imported.keys() - {module}
    return graph


def cycles(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left of a graph when all that leads to no cycle is taken away."""
    graph = dict(graph)
    while leaves := [name for name, targets in graph.items() if not targets & graph.keys()]:
        for name in leaves:
            del graph[name]
    return graph


@pytest.mark.parametrize(
    ("folder", "root"),
    [("torch_truly_sparse", "."), ("benchmarks", "."), ("examples", "examples")],
    ids=["package", "benchmarks", "examples"],
)
def test_imports_have_no_cycles(folder, root):
    graph = import_graph(ROOT / folder, ROOT / root)
    assert sum(map(len, graph.values())) > len(graph)  # it has seen them
    assert not cycles(graph)


def test_a_cycle_is_found_wherever_its_imports_stand(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "curve.py").write_text("def draw():\n    from .plot import line\n")
    (folder / "plot.py").write_text("from pictures import curve\n")
    (folder / "alone.py").write_text("from . import plot\nimport curve\n")
    graph = import_graph(folder, tmp_path)
    assert graph["pictures.alone"] == {"pictures.plot"}
    assert cycles(graph) == {
        "pictures.curve": {"pictures.plot"},
        "pictures.plot": {"pictures.curve"},
        "pictures.alone": {"pictures.plot"},
    }


@pytest.mark.parametrize(
    ("folder", "may_include"),
    [
        ("kernels", r"<[a-z_]+>|\"[a-z_]+\.h\""),
        (
            "bindings",
            r"<[a-z_]+>|<(?:pthread|unistd|sys/mman)\.h>|\"[a-z_]+\.h\"|\"\.\./kernels/[a-z_]+\.h\""
            r"|<torch/csrc/stable/\w+\.h>|<torch/headeronly/.*>",
        ),
    ],
)
def test_kernels_know_no_torch_and_bindings_only_its_stable_abi(folder, may_include):
    for path in (ROOT / "csrc" / folder).iterdir():
        for header in re.findall(r"^\s*#\s*include\s+(\S+)", path.read_text(), re.MULTILINE):
            assert re.fullmatch(may_include, header), f"{path.name} includes {header}"


def test_examples_and_benchmarks_use_the_public_interface():
    for folder in "examples", "benchmarks":
        for path in (ROOT / folder).rglob("*.py"):
            for name in imported_names(path.read_text()):
                if name[0] == "torch_truly_sparse":
                    assert not any(part.startswith("_") for part in name), f"{path}: {name}"


def test_the_parser_sees_what_it_should():
    source = "import torch\nfrom .. import _library\nfrom ..nn.init import X\nfrom .a import b"
    assert imported_names(source, ("torch_truly_sparse", "ops")) == {
        ("torch",),
        ("torch_truly_sparse", "_library"),
        ("torch_truly_sparse", "nn", "init", "X"),
        ("torch_truly_sparse", "ops", "a", "b"),
    }
    assert rooms_entered({("torch_truly_sparse", "nn", "init"), ("torch", "nn")}) == {"nn"}
