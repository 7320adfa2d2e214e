from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    # Small products gain nothing from more, and lose much where other programs run beside them.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _ends_what_it_has_started_when_it_is_ended() -> Iterator[None]:
    # What limits the tests from outside sends SIGTERM, which alone would run no `finally`.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _one_thread_again() -> Iterator[None]:
    # A test that sets another number of threads would slow down all that come after it.
    yield
    torch.set_num_threads(1)


@pytest.fixture
def _restores_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _one_thread_in_benchmarks(monkeypatch: pytest.MonkeyPatch, _restores_threads: None) -> None:
    """Small problems, and other tests may be running beside: threads would wait, not work."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)
