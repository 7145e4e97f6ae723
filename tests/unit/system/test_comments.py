"""A comment of ours is found in the kernel's bytes, and nothing that only looks like one."""

from __future__ import annotations

import pytest

from ipttrace.system.comments import SESSION_LENGTH, holds, of_matches, session_in, session_of

XT_MATCH = b"\x20\x01comment" + bytes(22)
"""struct xt_entry_match up to its revision (uapi/linux/netfilter/x_tables.h)."""


def xt(comment: bytes) -> bytes:
    return XT_MATCH + comment.ljust(256, b"\0") + bytes(8)


def user_data(comment: bytes) -> bytes:
    return bytes((0, len(comment) + 1)) + comment + b"\0"


@pytest.mark.parametrize("home", [xt, user_data])
@pytest.mark.parametrize("session", ["a", "8f3e01c2", "x" * SESSION_LENGTH])
def test_found_in_each_home(home: type[bytes], session: str) -> None:
    data = home(b"ipttrace:" + session.encode())
    assert session_in(data) == session
    assert holds(data, f"ipttrace:{session}")


@pytest.mark.parametrize(
    "comment",
    [
        b"ipttrace: a",
        b"my ipttrace:a",
        b"ipttrace:A",
        b"ipttrace:",
        b"ipttrace",
        b"\xc3\xa9ipttrace:a",
    ],
)
def test_others_are_not_ours(comment: bytes) -> None:
    assert session_in(xt(comment)) is None


def test_a_longer_name_is_another_session() -> None:
    assert not holds(xt(b"ipttrace:ab"), "ipttrace:a")
    assert not holds(xt(b"ipttrace:a"), "ipttrace:ab")
    assert not holds(b"ipttrace:a", "ipttrace:a")


def test_what_memory_left_behind_a_name_is_no_comment() -> None:
    """Recorded: a rule of another session bore our tag behind the name of its match `bpf`."""
    left_over = b"\x30\x00bpf\0\0\0ipttrace:eac544d1\0".ljust(32, b"\0") + bytes(16)
    own = b"\x20\x01comment".ljust(32, b"\0") + b"ipttrace:4cb98b50\0ipttrace:eac544d1".ljust(
        256, b"\0"
    )
    assert of_matches(left_over) is None
    assert of_matches(left_over + own) == "ipttrace:4cb98b50"
    assert session_of(of_matches(left_over + own)) == "4cb98b50"


@pytest.mark.parametrize("data", [b"", b"\x01", bytes(32), b"\x05\0comment".ljust(64, b"\0")])
def test_no_match_is_no_comment(data: bytes) -> None:
    assert session_of(of_matches(data)) is None
