from __future__ import annotations

from dataclasses import replace

import pytest

from ipttrace.diagnose.client import client_got, client_sees, reject_answer
from ipttrace.netfilter import PacketFamily, Verdict
from ipttrace.path import Outcome
from tests import builders as b

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6


@pytest.mark.parametrize(
    ("text", "family", "errno"),
    [
        ("-j REJECT", V4, "ECONNREFUSED"),
        ("-j REJECT --reject-with tcp-reset", V4, "ECONNREFUSED"),
        ("-j REJECT --reject-with icmp-net-unreachable", V4, "ENETUNREACH"),
        ("-j REJECT --reject-with icmp-host-prohibited", V4, "EHOSTUNREACH"),
        ("-j REJECT --reject-with icmp-admin-prohibited", V4, "EHOSTUNREACH"),
        ("-j REJECT", V6, "ECONNREFUSED"),
        ("-j REJECT --reject-with icmp6-adm-prohibited", V6, "EACCES"),
        ("-j REJECT --reject-with icmp6-no-route", V6, "ENETUNREACH"),
        ("reject with tcp reset", V4, "ECONNREFUSED"),
        ("reject with icmp type host-prohibited", V4, "EHOSTUNREACH"),
        ("reject with icmpv6 type admin-prohibited", V6, "EACCES"),
        ("reject with icmpx type no-route", V6, "ENETUNREACH"),
        ("reject with icmpx no-route", V4, "ENETUNREACH"),
        ("reject with icmpx host-unreachable", V6, "EHOSTUNREACH"),
        ("reject with icmpv6 policy-fail", V6, "EACCES"),
        ("reject with icmpv6 reject-route", V6, "EACCES"),
        ("reject", V4, "ECONNREFUSED"),
        ("-j REJECT --reject-with something-new", V4, ""),
    ],
)
def test_what_a_reject_does_to_the_client(text: str, family: PacketFamily, errno: str) -> None:
    hop = replace(b.rule_hop("filter", "INPUT", 1, "-j REJECT"), rule=text)
    assert reject_answer(hop, family)[1] == errno


@pytest.mark.parametrize(
    ("reason", "v4", "v6"),
    [
        ("no-route", "ICMP 3/0", "ICMPv6 1/0"),
        ("port-unreachable", "ICMP 3/3", "ICMPv6 1/4"),
        ("host-unreachable", "ICMP 3/1", "ICMPv6 1/3"),
        ("admin-prohibited", "ICMP 3/13", "ICMPv6 1/1"),
    ],
)
def test_what_icmpx_makes_of_a_word_is_the_familys_own(reason: str, v4: str, v6: str) -> None:
    """Measured on Linux 6.18 (nft_reject.c)."""
    hop = b.rule_hop("filter", "INPUT", 1, "-j REJECT")
    hop = replace(hop, rule=f"tcp dport 8443 reject with icmpx {reason}")
    assert reject_answer(hop, V4)[0].startswith(f"{v4},")
    assert reject_answer(hop, V6)[0].startswith(f"{v6},")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("CONNECTED", "the client is connected"),
        ("TIMEOUT", "the client got no answer (timeout)"),
        ("ECONNREFUSED", "the client got 'Connection refused' (ECONNREFUSED)"),
        ("EXDEV", "the client got EXDEV"),
    ],
)
def test_what_the_client_got(word: str, sentence: str) -> None:
    assert client_got(word) == sentence


def test_what_a_client_would_see() -> None:
    reject = b.rule_hop("filter", "INPUT", 1, "-j REJECT")
    assert client_sees(b.mark_drop_path()) == "a client sees a timeout"
    assert client_sees(b.path(reject, outcome=Outcome.REJECTED)) == "a client sees ECONNREFUSED"
    assert client_sees(b.redirect_path()) is None
    assert client_sees(b.path()) is None
    assert client_sees(b.path(outcome=Outcome.DROPPED)) == "a client sees a timeout"


def test_udp_that_its_own_host_drops_fails_at_once() -> None:
    path = b.path(b.policy_hop("filter", "OUTPUT", Verdict.DROP), outcome=Outcome.DROPPED)
    assert client_sees(replace(path, packet=b.udp())) == "the sender sees EPERM"
    assert client_sees(path) == "a client sees a timeout"
