"""Tests that need a C++ compiler skip where there is none, as where a wheel was installed."""

from __future__ import annotations

import shutil

import pytest

COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
