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
OURS = "our own processes, words or files: the same on every kernel"
LEFT_OUT = {
    "test_a_lock_that_is_held_is_waited_for_then_given_up": WAITS,
    "test_a_lock_held_at_the_end_is_said_and_outwaited": WAITS,
    "test_another_session_that_holds_the_group_is_waited_for": WAITS,
    "test_looking_for_the_way_on_is_quick_among_many_namespaces": SPEED,
    "test_it_takes_little_time": SPEED,
    "test_up_within_a_second": SPEED,
    "test_a_guardian_killed_before_arming_is_an_error": OURS,
    "test_a_killed_guardian_has_nothing_to_release": OURS,
    "test_a_session_is_not_started_twice": OURS,
    "test_disarming_twice_says_the_same": OURS,
    "test_names_of_sessions_are_plain": OURS,
    "test_signals_to_the_guardian_do_not_matter": OURS,
    "test_two_sessions_at_once": OURS,
    "test_no_such_namespace": OURS,
    "test_several_namespaces": OURS,
    "test_text_for_people": OURS,
    "test_the_order_of_the_options_is_not_that_of_the_way": OURS,
    "test_broken_part_is_named_and_nothing_stays": OURS,
    "test_killed_keeper_is_noticed": OURS,
    "test_namespace_name_that_is_taken": OURS,
    "test_what_needs_rights_says_which_in_one_line": OURS,
    "test_hops_are_shown_on_demand": OURS,
    "test_it_ends_by_itself": OURS,
    "test_the_json_names_the_ports": OURS,
}
"""By the function's name: why it is not run."""

FILES_LEFT_OUT = {
    "test_library.py": "hours; the labs' parts have tests of their own",
    "test_lab_commands.py": "our own processes and words: the same on every kernel",
    "test_foreign_noise.py": "a minute for each test: thousands of packets",
    "test_twin.py": "thousands of rules: hours on an emulated processor",
    "test_screen.py": "a screen is drawn by our own processes: the same on every kernel",
    "test_trace_screen.py": "as above",
    "test_workbench.py": "as above",
    "test_places.py": "as above",
    "test_kills.py": "waits for each moment of a program's start, a minute each there",
    "test_writing.py": "our own files: the same on every kernel",
}
"""By the file's name: why none of its tests is run."""

FEW = frozenset(
    {
        "test_causes_chains.py",
        "test_causes_link.py",
        "test_causes_remote.py",
        "test_causes_routing.py",
        "test_causes_sockets.py",
        "test_check.py",
        "test_plugin.py",
        "test_remedies.py",
        "test_remedies_routing.py",
    }
)
"""Files of which one in so many tests is run."""
ONE_IN = 6
FEW_BECAUSE = "minutes; all of them: scripts/vm-test -- -m 'not full' tests/root/test_causes_*.py"

TWICE = frozenset({"test_every_hop_is_the_kernels"})
"""Random rules: two sets of parameters that have none in common."""


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
    file = function.partition("::")[0].rpartition("/")[2]
    if name in LEFT_OUT or file in FILES_LEFT_OUT:
        return ()
    if file in FEW and zlib.crc32(name.encode()) % ONE_IN:
        return ()
    first = tests[zlib.crc32(name.encode()) % len(tests)]
    if name not in TWICE:
        return (first,)
    words = _parameters(first)
    return (first, *[test for test in tests if not words & _parameters(test)][:1])


def _parameters(test: str) -> set[str]:
    return set(test.partition("[")[2].rstrip("]").split("-"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take the others out; the last line of pytest counts them."""
    wanted = chosen([item.nodeid for item in items])
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in wanted])
    items[:] = [item for item in items if item.nodeid in wanted]
