"""A pytest plugin that chooses what an emulated machine can run in a quarter of an hour.

Of each test it takes one set of parameters, another one from test to test, so that both backends
and both families are met; some tests it leaves out altogether.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # scripts/vm-test reads LEFT_OUT with any Python
    import pytest

WAITS = "waits for seconds, on our own locks: nothing of the kernel's"
SPEED = "measures speed: an emulated processor's says nothing"
LEFT_OUT = {
    "test_a_lock_that_is_held_is_waited_for_then_given_up": WAITS,
    "test_a_lock_held_at_the_end_is_said_and_outwaited": WAITS,
    "test_another_session_that_holds_the_group_is_waited_for": WAITS,
    "test_looking_for_the_way_on_is_quick_among_many_namespaces": SPEED,
    "test_it_takes_little_time": SPEED,
}
"""By the function's name: why it is not run."""

TWICE = frozenset({"test_every_hop_is_the_kernels"})
"""Random rules: two sets, as far apart as can be."""


def function_of(test: str) -> str:
    """Return the id of a test without its parameters."""
    return test.partition("[")[0]


def chosen(tests: Sequence[str]) -> set[str]:
    """Return the ids to run; the same ones each time, whatever their order."""
    by_function: dict[str, list[str]] = {}
    for test in sorted(tests):
        by_function.setdefault(function_of(test), []).append(test)
    return {test for function, some in by_function.items() for test in _of_one(function, some)}


def _of_one(function: str, tests: list[str]) -> Iterable[str]:
    name = function.rpartition("::")[2]
    if name in LEFT_OUT:
        return ()
    first = zlib.crc32(name.encode()) % len(tests)
    return (tests[first], tests[first - len(tests) // 2]) if name in TWICE else (tests[first],)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the others out; the last line of pytest counts them."""
    wanted = chosen([item.nodeid for item in items])
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
    items[:] = [item for item in items if item.nodeid in wanted]
