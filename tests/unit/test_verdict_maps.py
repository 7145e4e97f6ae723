"""What a rule of native nft with a verdict map decided stands in the report, not in its text."""

# ruff: noqa: E101 - nft indents by tabs and aligns by spaces

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ipttrace.decode.nft_list import decode_nft_list
from ipttrace.event import TraceKind
from ipttrace.mapped import matched_element
from ipttrace.needs import rules_met_untraced
from ipttrace.netfilter import Hook, PacketFamily, Verdict
from ipttrace.path import ChainHop
from ipttrace.render.words import hop_effects
from ipttrace.request import TraceRequest
from tests.builders import tcp
from tests.recordings import read_recording
from tests.transcripts import correlate, events_of

EARLY = """table netdev guard { # handle 1
	chain in { # handle 1
		type filter hook ingress device "eth0" priority -500; policy accept;
		counter packets 0 bytes 0 # handle 2
	}
}
table inet before { # handle 2
	chain raw { # handle 1
		type filter hook prerouting priority -1000; policy accept;
		counter packets 0 bytes 0 # handle 2
	}
	chain sent { # handle 3
		type filter hook output priority -302; policy accept;
		counter packets 0 bytes 0 # handle 4
	}
	chain empty { # handle 5
		type filter hook prerouting priority -1001; policy accept;
	}
	chain in_time { # handle 6
		type filter hook prerouting priority -300; policy accept;
		counter packets 0 bytes 0 # handle 7
	}
	chain input { # handle 8
		type filter hook input priority -1000; policy accept;
		counter packets 0 bytes 0 # handle 9
	}
}
table bridge br { # handle 3
	chain pre { # handle 1
		type filter hook prerouting priority -1000; policy accept;
		counter packets 0 bytes 0 # handle 2
	}
}
"""


def mapped_hops() -> list[ChainHop]:
    recording = read_recording("native4")
    paths = correlate(recording.ruleset, events_of(recording)).paths()
    hops = [hop for path in paths for hop in path.chain_hops if "vmap" in (hop.rule or "")]
    assert {hop.event for hop in hops} == {TraceKind.RULE}
    return hops


def test_the_verdict_and_the_chain_that_it_leads_to_are_shown() -> None:
    hops = {(str(hop.verdict), hop.target): hop_effects(hop) for hop in mapped_hops()}
    assert hops == {("DROP", "vmap"): ("DROP by 1",), ("JUMP", "second"): ("JUMP second by 2",)}


def test_a_map_that_has_no_element_for_the_packet_says_nothing() -> None:
    (hop, *_) = mapped_hops()
    for verdict in (Verdict.ACCEPT, Verdict.RETURN):
        assert hop_effects(replace(hop, verdict=verdict, element=None)) == (str(verdict),)
    assert hop_effects(replace(hop, verdict=Verdict.CONTINUE, element=None)) == ()


# ------------------------------------------------------------------ which element it was


MAPS = """table inet t { # handle 1
	map m { # handle 3
		type ipv4_addr . inet_service : verdict
		flags interval
		counter
		elements = { 10.0.0.0/8 . 80-90 counter packets 0 bytes 0 : drop,
			     192.0.2.1 . 443 counter packets 0 bytes 0 comment "a : b, c" : drop }
	}

	map e { # handle 4
		type inet_service : verdict
	}

	map t6 { # handle 5
		type ipv6_addr : verdict
		flags timeout
		elements = { ::1 timeout 5m expires 4m59s988ms : drop,
			     2001:db8::1 : jump two,
			     fe80::/64 : jump two }
	}

	chain one { # handle 1
		type filter hook input priority 0; policy accept;
		ip saddr . tcp dport vmap @m # handle 6
		ip6 saddr vmap @t6 # handle 7
		tcp dport vmap @e # handle 8
		tcp dport vmap { 22 : drop, 80-90 : drop, * : drop } # handle 10
		iifname vmap { "lo" : drop, "eth0" : drop } comment "x vmap { 1 : drop }" # handle 14
		meta l4proto vmap { icmp : accept, tcp : jump two, udp : jump two } # handle 16
		ip daddr vmap { 10.0.0.0/24 : accept, 10.0.1.5-10.0.1.9 : accept } # handle 20
		ip ttl 5 meta mark vmap { 0x00000001 : drop, 0x00000002 : accept } # handle 22
		tcp dport vmap @e udp dport vmap @e # handle 24
	}

	chain two { # handle 2
	}
}
table ip other { # handle 2
	chain one { # handle 1
		tcp dport vmap @e # handle 2
	}
}
"""
"""As nft 1.0.6 lists them."""


def element(handle: int, verdict: Verdict, chain: str | None = None, **packet: Any) -> str:
    """Return the key by which a packet got that verdict at a rule of MAPS."""
    (rule,) = [
        each
        for each in decode_nft_list(MAPS).rules()
        if each.handle == handle and each.chain.table == "t"
    ]
    found = matched_element(rule, verdict, chain, replace(tcp(), **packet))
    return found.key if found is not None else ""


def test_keys_are_read_without_what_nft_says_of_their_use() -> None:
    rules = {rule.handle: rule for rule in decode_nft_list(MAPS).rules()}
    assert [(each.key, each.verdict) for each in rules[6].elements] == [
        ("10.0.0.0/8 . 80-90", "drop"),
        ("192.0.2.1 . 443", "drop"),
    ]
    assert [each.key for each in rules[7].elements] == ["::1", "2001:db8::1", "fe80::/64"]
    assert [each.key for each in rules[14].elements] == ['"lo"', '"eth0"']
    assert rules[8].elements == rules[24].elements == rules[2].elements == ()


def test_the_verdict_decides_where_only_one_element_has_it() -> None:
    assert element(22, Verdict.DROP) == "0x00000001"
    assert element(22, Verdict.ACCEPT) == "0x00000002"
    assert element(16, Verdict.ACCEPT, protocol="icmp") == "icmp"
    assert element(22, Verdict.CONTINUE) == ""
    assert element(7, Verdict.DROP, family=PacketFamily.IPV6, src="::2") == ""


def test_the_packet_decides_among_elements_of_one_verdict() -> None:
    assert element(16, Verdict.JUMP, "two", protocol="udp") == "udp"
    assert element(10, Verdict.DROP, dport=22) == "22"
    assert element(10, Verdict.DROP, dport=85) == "80-90"
    assert element(10, Verdict.DROP, dport=99) == "*"
    assert element(20, Verdict.ACCEPT, dst="10.0.0.7") == "10.0.0.0/24"
    assert element(20, Verdict.ACCEPT, dst="10.0.1.9") == "10.0.1.5-10.0.1.9"
    assert element(6, Verdict.DROP, src="10.1.2.3", dport=80) == "10.0.0.0/8 . 80-90"
    assert element(6, Verdict.DROP, src="192.0.2.1", dport=443) == "192.0.2.1 . 443"
    link_local = {"family": PacketFamily.IPV6, "src": "fe80::5"}
    assert element(7, Verdict.JUMP, "two", **link_local) == "fe80::/64"


def test_none_is_named_where_that_is_not_known() -> None:
    assert element(14, Verdict.DROP) == "", "by interface, which is not judged"
    assert element(10, Verdict.DROP, dport=None) == "", "a later fragment"


def test_rules_that_stand_before_the_triggers_are_named() -> None:
    (warning,) = rules_met_untraced(decode_nft_list(EARLY), None)
    assert warning == (
        "not traced, because packets meet them first: "
        "the rules of netdev guard/in, inet before/raw, inet before/sent"
    )
    assert rules_met_untraced(read_recording("nft4-walk").ruleset, None) == ()


@pytest.mark.parametrize(
    ("devices", "warnings"),
    [
        (("eth0",), ()),
        ((), ("not traced, because packets meet them first: the rules of netdev guard/in",)),
    ],
)
def test_rules_that_early_triggers_come_before_are_not_named(
    devices: tuple[str, ...], warnings: tuple[str, ...]
) -> None:
    armed = TraceRequest("x", early_devices=devices, early_hooks=(Hook.PREROUTING, Hook.OUTPUT))
    assert rules_met_untraced(decode_nft_list(EARLY), armed) == warnings
