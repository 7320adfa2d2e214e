"""The campaigns of hostile inputs and sudden deaths, in short."""

from __future__ import annotations

import os
import signal

import pytest
from oracles import TESTS
from processes import run_python

from benchmarks.reliability import children
from benchmarks.reliability.children import run_trials

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


@pytest.mark.parametrize(
    ("campaign", "count", "line"),
    [
        ("states", "150", "refused"),
        ("contents", "200", "refused"),
        ("tables", "300", "whole, read as it is"),
        ("arguments", "300", "computed as for plain copies"),
        ("soak", "300", "invariants hold"),
        ("kills", "3", "ended as the uninterrupted one"),
    ],
)
def test_a_campaign_finds_nothing(campaign, count, line):
    """In a process of its own: one that has computed gradients cannot fork others that do."""
    arguments = ("-m", "benchmarks.reliability", campaign, "--count", count)
    done = run_python(*arguments, cwd=TESTS.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert line in done.stdout


def trial(seed: int) -> str:
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 5:
        raise KeyError("on purpose")
    return "WRONG: of course" if seed == 7 else "fine: whatever"


def test_a_trial_that_dies_is_told_and_the_others_go_on():
    outcome = run_trials(trial, range(10), batch=4)
    assert outcome.counts == {"fine": 7, "CRASHED": 1, "RAISED": 1, "WRONG": 1}
    assert [seed for seed, _ in outcome.bad] == [3, 5, 7]
    assert "status 9" in outcome.bad[0][1]


def test_a_trial_that_says_nothing_for_too_long_is_told(monkeypatch):
    monkeypatch.setattr(children.select, "select", lambda *_: ([], [], []))
    outcome = run_trials(lambda seed: "fine", range(3))
    assert outcome.counts == {"HUNG": 3}
