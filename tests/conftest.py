"""What all tests share: the gate before tests that need root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT_TESTS = Path(__file__).parent / "root"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test below tests/root, so that none of them can forget it."""
    for item in items:
        if item.path.is_relative_to(ROOT_TESTS):
            item.add_marker("root")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a root test without root; fail it where root was promised."""
    if item.get_closest_marker("root") is None or os.geteuid() == 0:
        return
    if os.environ.get("IPTTRACE_REQUIRE_ROOT") == "1":
        pytest.fail("needs root, and IPTTRACE_REQUIRE_ROOT=1 forbids to skip it")
    pytest.skip("needs root")
