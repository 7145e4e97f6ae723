"""What a word for a namespace means, as far as this process's own one can show it."""

from __future__ import annotations

import os

import pytest

from ipttrace.errors import UsageError
from ipttrace.system.namespaces import HERE, find_namespace, find_namespaces

OURS = "/proc/self/ns/net"


def test_a_path_a_process_and_nothing_can_mean_the_same() -> None:
    by_path, by_process = find_namespace(OURS), find_namespace(str(os.getpid()))
    assert by_path.is_same(by_process)
    assert find_namespaces(()) == [HERE]
    assert HERE.is_same(by_path)


def test_one_namespace_is_not_traced_twice() -> None:
    pid = str(os.getpid())
    with pytest.raises(UsageError, match=f"namespace {pid} beside namespace {OURS}"):
        find_namespaces((OURS, pid))


@pytest.mark.parametrize(
    "word", ["/no/such/file", "no-such-name", "4294967295", "abc", "", ".", ".."]
)
def test_what_is_not_there_is_said_with_what_there_could_be(word: str) -> None:
    with pytest.raises(UsageError, match=f"no namespace {word!r}") as caught:
        find_namespace(word)
    assert "container" in caught.value.hint


def test_a_number_may_be_a_process_that_is_gone() -> None:
    with pytest.raises(UsageError, match="no process has that id"):
        find_namespace("4294967295")


@pytest.mark.parametrize("path", ["/proc/self/ns/mnt", "/dev/null", "/proc"])
def test_what_is_no_namespace_of_the_network_is_said_to_be_none(path: str) -> None:
    """setns(2) says EINVAL, to everybody."""
    with pytest.raises(UsageError, match=f"cannot enter namespace {path}: .* no network namespace"):
        find_namespace(path).run(lambda: None)
