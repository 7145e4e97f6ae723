"""What the words of the filter line mean, and what is said of those that mean nothing."""

from __future__ import annotations

import pytest

from ipttrace.errors import UsageError
from ipttrace.path import PacketPath
from ipttrace_tui.packet_filter import Known, parse_filter
from ipttrace_tui.packet_log import Entry, entry_of, rules_of
from tests.builders import CLIENT6, SERVER6, icmp, mark_drop_path, path, redirect_path, tcp
from tests.tui.builders import MARK_DROP

DROPPED = mark_drop_path(number=7, diagnosis=MARK_DROP)
DELIVERED = redirect_path()
V6 = path(packet=tcp(CLIENT6, SERVER6), number=9, netns="web")
PING = path(packet=icmp(), number=10)
ALL = (DROPPED, DELIVERED, V6, PING)
KNOWN = Known(("tcp", "icmp", "132"), ("server", "web"))


def entry(whole: PacketPath) -> Entry:
    return entry_of(whole, rules_of(whole))


def passing(text: str) -> list[int]:
    wanted = parse_filter(text, KNOWN)
    return [each.id for each in ALL if wanted.passes(entry(each))]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", [7, 1, 9, 10]),
        ("dropped", [7]),
        ("DROPPED", [7]),
        ("outcome:dropped", [7]),
        ("is:dropped", [7]),
        ("!dropped", [1, 9, 10]),
        ("mark-drop", [7]),
        ("cause:mark-drop", [7]),
        ("203.0.113.7", [7, 1, 10]),
        ("203.0.113.0/24", [7, 1, 10]),
        ("src:198.51.100.1", []),
        ("dst:198.51.100.1", [7, 1, 10]),
        ("2001:db8:7::7", [9]),
        ("2001:db8::/32", [9]),
        ("addr:::/0", [9]),
        (":8445", [1]),
        ("8445", [1]),
        ("port:40000", [7, 1, 9]),
        ("sport:40000 dport:8443", [7, 9]),
        ("icmp", [10]),
        ("proto:icmp", [10]),
        ("132", []),
        ("web", [9]),
        ("netns:web", [9]),
        ("ns:nobody", []),
        ("rule:redirect", [1]),
        ('rule:"-j DROP"', [7]),
        ("rule:nothing", []),
        ("role:probe", [7, 1, 9, 10]),
        ("id:7", [7]),
        ("tcp !:8445 !web", [7]),
    ],
)
def test_words_choose_packets(text: str, ids: list[int]) -> None:
    assert passing(text) == ids


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "dropt",
            "'dropt' means nothing here. Did you mean dropped?",
        ),
        ("foo:bar", "'foo:bar' has an unknown key"),
        ("outcom:dropped", "'outcom:dropped' has an unknown key. Did you mean outcome?"),
        ("outcome:x", "'x' is no outcome"),
        ("cause:mark-dorp", "'mark-dorp' is no cause. Did you mean mark-drop?"),
        ("300.1.2.3", "'300.1.2.3' is no address or network"),
        ("port:99999", "'99999' is no port: these are 0 to 65535"),
        (":x", "'x' is no port: these are 0 to 65535"),
        ("id:x", "'x' is no packet number"),
        ("port:", "port: has no value"),
        ("rule:'x", "a quote is not closed"),
        ("\x1b[2J", r"'\x1b[2J' means nothing here. For text of rules: rule:\x1b[2J"),
    ],
)
def test_a_bad_word_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_filter(text, KNOWN)
    assert str(raised.value) == said


def test_an_empty_filter_is_none() -> None:
    assert not parse_filter("  ")
    assert parse_filter("tcp")
