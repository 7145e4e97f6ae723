from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.lab.host import Host
from ipttrace.lab.ipsets import MOST_ENTRIES, port_of, read_ipsets
from ipttrace.lab.parts import BadFieldError

SAVED = """\
create all list:set size 8
add all bad
create bad hash:ip family inet hashsize 1024 maxelem 65536 timeout 600 bucketsize 12 initval 0x1
add bad 192.0.2.1 timeout 300 comment "two words"
create nets hash:net family inet6
add nets 2001:db8::/32
create ports hash:net,port family inet
add ports 10.0.0.0/8,tcp:80
add ports 10.1.0.0/16,53
create ways hash:net,iface
add ways 10.0.0.0/8,eth0
create trios hash:ip,port,ip
add trios 10.0.0.1,udp:53,10.0.0.2
"""


def test_sets_are_read_and_written() -> None:
    found = read_ipsets(SAVED)
    assert found.missing == []
    assert found.sets["bad"].lines() == [
        "create bad hash:ip family inet maxelem 65536",
        "add bad 192.0.2.1",
    ]
    assert found.sets["all"].entries == ["bad"]
    assert read_ipsets(found.text()).text() == found.text()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("create x bitmap:port range 1-9", "type bitmap:port"),
        ("create x hash:ip netmask 24", "netmask 24"),
        ("create x hash:ip family arp", "family arp"),
        (f"create {'x' * 32} hash:ip", "name a set"),
        ("create x", "name and a type"),
        ("add unknown 192.0.2.1", "not built"),
        ("add bad 2001:db8::1", "not of family inet"),
        ("add bad 192.0.2.1-192.0.2.9", "does not appear"),
        ("add nets 2001:db8::/32 nomatch", "nomatch"),
        ("add nets ::/0", "no network"),
        ("add ports 10.0.0.0/8", "2 parts"),
        ("add ports 10.0.0.0/8,icmp:echo-request", "no port"),
        ("add ways 10.0.0.0/8,physdev:eth0", "cannot name"),
        ("add all nobody", "nobody is not built"),
        ("destroy bad", "no line"),
        ('add bad "', "quotation"),
    ],
)
def test_what_cannot_be_built_is_named(line: str, reason: str) -> None:
    [missing] = read_ipsets(SAVED + line + "\n").missing
    assert reason in missing.reason
    assert missing.line == len(SAVED.splitlines()) + 1


def test_entries_have_a_limit_that_is_said() -> None:
    adds = "".join(f"add x 10.0.{n // 250}.{n % 250}\n" for n in range(MOST_ENTRIES + 2))
    found = read_ipsets("create x hash:ip\n" + adds)
    assert len(found.sets["x"].entries) == MOST_ENTRIES
    assert len(found.missing) == 2


def test_ports_have_a_protocol() -> None:
    assert port_of("udp:53") == (17, 53)
    assert port_of("80") == (6, 80)


def test_a_lab_refuses_what_it_cannot_build() -> None:
    with pytest.raises(BadFieldError, match="line 1: destroy x: it is no line"):
        Host(ipsets="destroy x\n")


@given(st.text(max_size=100))
def test_any_text_is_read(text: str) -> None:
    read_ipsets(text)
