"""The examples in the pages do what the pages say, and every page can be found."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
SESSION = re.compile(r"^```pycon\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_SESSIONS = [page for page in PAGES if SESSION.search(page.read_text())]


@pytest.mark.parametrize("page", WITH_SESSIONS, ids=lambda page: page.name)
def test_the_sessions_of_a_page_run(page: Path) -> None:
    sessions = SESSION.findall(page.read_text())
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    test = parser.get_doctest("\n".join(sessions), {"__name__": "page"}, page.name, page.name, 0)
    runner.run(test)
    assert not runner.failures


def test_pages_with_sessions_are_found() -> None:
    assert {"evolution_rules.md", "layers.md", "pytorch.md"} <= {p.name for p in WITH_SESSIONS}


def test_the_first_example_of_the_readme_runs_and_evolves() -> None:
    block = re.search(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
    assert block is not None
    scope: dict[str, object] = {}
    exec(block[1], scope)
    assert len(scope["evolution"].history) == 4
    assert len([line for line in block[1].splitlines() if line and "import" not in line]) == 8


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_page_is_reached_from_the_readme(page: Path) -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        for link in re.findall(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)", at.read_text()):
            if "://" not in link:
                target = (at.parent / link).resolve()
                assert target.is_file(), f"{at.name} links to {link}, which is not there"
                waiting.append(target)
    assert page in seen
