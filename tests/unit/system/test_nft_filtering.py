"""The expressions of a packet filter, and the order in which the rules of one use them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.request import PacketFilter, TraceRequest, Trigger
from ipttrace.system import nft_expressions as nft
from ipttrace.system import nft_filtering
from ipttrace.system.filter_rules import FilterRules
from ipttrace.system.netlink_attributes import parse

PROGRAM = ((0x80, 0, 0, 0), (0x25, 1, 0, 100), (6, 0, 0, 65535), (6, 0, 0, 0))
FILTER = PacketFilter("less 100", PROGRAM)
REQUEST = TraceRequest("8f3e01c2", filter=FILTER, trigger=Trigger.OWNER, limit=20)


def expressions(rule: bytes) -> list[tuple[str, dict[int, bytes]]]:
    """Return the name and the attributes of each expression."""
    found = []
    while rule:
        length = int.from_bytes(rule[:2], "little")
        parts = parse(rule[4:length])
        found.append((parts[1].rstrip(b"\0").decode(), parse(parts[2])))
        rule = rule[(length + 3) & ~3 :]
    return found


def shape(request: TraceRequest, *, tracked: bool) -> list[str]:
    """Return each rule as the names of its expressions that are no comparison."""
    rules = FilterRules(request, FILTER, PacketFamily.IPV4, tracked=tracked).triggers()
    unsaid = {"cmp", "meta", "immediate", "bitwise"}
    return [
        " ".join([chain, *(name for name, _ in expressions(rule) if name not in unsaid)])
        for chain, rule in rules
    ]


def test_program_as_xt_bpf_takes_it() -> None:
    """In struct xt_bpf_info: a count, 64 instructions of 8 bytes, and the kernel's pointer."""
    ((name, data),) = expressions(nft_filtering.matches(PROGRAM))
    info = data[nft_filtering.NFTA_MATCH_INFO]
    assert (name, data[nft_filtering.NFTA_MATCH_NAME]) == ("match", b"bpf\0")
    assert len(info) == 4 + 64 * 8 + 4 + 8
    assert int.from_bytes(info[:2], "little") == 4
    assert info[12:20] == bytes((0x25, 0, 1, 0)) + (100).to_bytes(4, "little")


@pytest.mark.parametrize(("rate", "burst"), [(1, 5), (5, 5), (20, 20), (100_000, 100_000)])
def test_burst(rate: int, burst: int) -> None:
    data = parse(nft_filtering.limit_data(rate))
    assert int.from_bytes(data[nft_filtering.NFTA_LIMIT_RATE], "big") == rate
    assert int.from_bytes(data[nft_filtering.NFTA_LIMIT_BURST], "big") == burst


def test_rules_where_nothing_is_tracked_ask_for_no_connection() -> None:
    """IPv4's fragments come in: the first one is remembered, and the others are known by it."""
    key = "payload payload payload"
    assert shape(REQUEST, tracked=False) == [
        "trigger-prerouting",
        f"trigger-prerouting payload match objref objref objref {key} dynset",
        "trigger-prerouting payload match",
        "trigger-prerouting match objref objref objref",
        f"trigger-prerouting payload {key} lookup objref objref objref",
        "trigger-output match objref objref objref",
    ]


def test_rules_of_connections_alone_beside_a_raw_trigger() -> None:
    """They are beside the rules that count what the raw trigger has to trace."""
    assert shape(replace(REQUEST, trigger=Trigger.RAW), tracked=True) == [
        "trigger-output",
        "trigger-prerouting",
        "trigger-prerouting match objref",
        "trigger-output match objref",
        "reply-prerouting ct lookup",
        "reply-prerouting ct match objref objref objref",
        "reply-prerouting match limit ct dynset",
        "reply-prerouting match",
        "reply-prerouting ct lookup objref objref objref",
        "reply-output match limit ct dynset",
        "reply-output match",
        "reply-output ct lookup objref objref objref",
    ]


def test_without_a_limit_there_is_none() -> None:
    rules = shape(replace(REQUEST, limit=None), tracked=True)
    assert not any("limit" in rule or rule.count("objref") > 2 for rule in rules)
    assert (
        FilterRules(replace(REQUEST, limit=None), FILTER, PacketFamily.IPV4, tracked=True).limits
        == {}
    )


def test_without_replies_connections_do_not_matter() -> None:
    rules = FilterRules(replace(REQUEST, replies=False), FILTER, PacketFamily.IPV4, tracked=True)
    assert not rules.remembers
    assert not rules.traces_tracked
    assert len(rules.triggers()) == 3


def test_set_forgets() -> None:
    described = parse(nft_filtering.connections("ipttrace-8f3e01c2"))
    assert int.from_bytes(described[nft_filtering.NFTA_SET_TIMEOUT], "big") == 120_000
    assert parse(described[nft_filtering.NFTA_SET_DESC])[1] == (65536).to_bytes(4, "big")
    assert nft.NFT_CT_ID == 23
