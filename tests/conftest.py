"""What all tests share: hypothesis profiles, and the gate before tests that need root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT_TESTS = Path(__file__).parent / "root"

settings.register_profile("fast", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=5000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("IPTTRACE_HYPOTHESIS", "fast"))


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
