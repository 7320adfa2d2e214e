"""The examples in the pages do what the pages say."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["evolution_rules.md", "pytorch.md"])
def test_the_sessions_of_a_page_run(page: str) -> None:
    sessions = re.findall(
        r"^```pycon\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE
    )
    assert sessions
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    test = parser.get_doctest("\n".join(sessions), {"__name__": "page"}, page, page, 0)
    runner.run(test)
    assert not runner.failures
