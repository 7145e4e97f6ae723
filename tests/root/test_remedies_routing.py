"""Remedies for nat that was not asked, and for routing: run as they are printed."""

from __future__ import annotations

import os

import pytest

from ipttrace.diagnose.remedy import show_chain
from ipttrace.netfilter import Backend, ChainRef, PacketFamily, TableFamily
from ipttrace.path import Outcome
from ipttrace.probe import ProbeSpec
from tests.root.causes import probe
from tests.root.kernel import Iptables, Listeners, Namespaces, run, set_sysctl
from tests.root.remedies import (
    OTHER,
    PORT,
    WAIT,
    add,
    build_served,
    follow,
    full,
    ip,
    later,
    nft,
    send,
    works,
)
from tests.root.routed import Routed

pytestmark = pytest.mark.root


@pytest.fixture
def routed(namespaces: Namespaces, listen: Listeners) -> Routed:
    """Return client -- router -- backend, where a service listens."""
    return build_served(namespaces, listen)


# ------------------------------------------------------------------- nat that was not asked

OPEN, HIDDEN = 8080, 8081
"""Of the router: a port that is redirected, and where its service listens."""


@pytest.mark.parametrize(("native", "number"), [(False, 0), *later((True, 0), (False, 1))])
def test_notrack_in_front_of_nat(
    routed: Routed, iptables: Iptables, listen: Listeners, native: bool, number: int
) -> None:
    listen(routed.netns, routed.router.ipv4, HIDDEN)
    if native:
        nft(
            routed,
            "table inet n { chain r { type filter hook prerouting priority raw;",
            f"tcp dport {OPEN} notrack; }}",
            "chain d { type nat hook prerouting priority dstnat;",
            f"tcp dport {OPEN} redirect to :{HIDDEN}; }}",
            "}",
        )
    else:
        match = f"PREROUTING -p tcp --dport {OPEN}"
        redirect = f"-t nat -A {match} -j REDIRECT --to-ports {HIDDEN}"
        add(routed, iptables, f"-t raw -A {match} -j NOTRACK", redirect)
    probed = send(routed, dst=routed.router.ipv4, dport=OPEN)
    probed.check("untracked-no-nat", Outcome.REFUSED)
    follow(routed, probed.diagnosis.remedy[number])
    assert send(routed, dst=routed.router.ipv4, dport=OPEN).cause == "delivered"


@pytest.mark.parametrize("native", [False, *later((True,))])
def test_a_redirect_for_one_interface_from_the_host_itself(
    routed: Routed, iptables: Iptables, listen: Listeners, native: bool
) -> None:
    listen(routed.netns, routed.router.ipv4, HIDDEN)
    if native:
        nft(
            routed,
            "table inet n { chain d { type nat hook prerouting priority dstnat;",
            f'iifname "eth0" tcp dport {OPEN} redirect to :{HIDDEN}; }}',
            "}",
        )
    else:
        match = f"PREROUTING -i eth0 -p tcp --dport {OPEN}"
        add(routed, iptables, f"-t nat -A {match} -j REDIRECT --to-ports {HIDDEN}")
    probed = probe(ProbeSpec("tcp", routed.router.ipv4, OPEN, wait=WAIT), routed.netns)
    probed.check("redirect-not-in-output", Outcome.REFUSED)
    follow(routed, probed.diagnosis.remedy[0])
    # REDIRECT gives what is made here the address 127.0.0.1 (nf_nat_redirect_ipv4)
    listen(routed.netns, "127.0.0.1", HIDDEN)
    again = probe(ProbeSpec("tcp", routed.router.ipv4, OPEN, wait=WAIT), routed.netns)
    assert again.cause == "delivered"


# ------------------------------------------------------------------- routing


OTHERS = ("iif eth0 dport 443", "uidrange 1-9", "oif eth1", "dsfield 0x10")
"""What routing rules ask for that no packet of these tests is or has."""


@pytest.mark.parametrize("number", [0, *later((2,))])
def test_a_mark_that_leads_to_a_route_which_refuses(
    routed: Routed, iptables: Iptables, number: int
) -> None:
    add(routed, iptables, f"-t mangle -A PREROUTING -p tcp --dport {PORT} -j MARK --set-mark 9")
    ip(routed, "rule add fwmark 9 lookup 99 pref 500")
    ip(routed, "route add prohibit default table 99")
    probed = send(routed)
    probed.check("blackhole-route", Outcome.DROPPED)
    assert probed.diagnosis.summary.endswith(
        "; ip rule 500 leads there for mark 0x9, which mangle/PREROUTING 1 had set"
    )
    works(routed, probed, number)


@pytest.mark.parametrize(
    ("asks", "kind"),
    [
        ("iif eth0 ipproto tcp dport 80", "blackhole"),
        ("uidrange 0-0", "prohibit"),
        *later(
            ("iif eth0 sport 1024-65000", "unreachable"),
            ("from 198.51.100.0/24", "prohibit"),
            ("not uidrange 1-9", "blackhole"),
        ),
    ],
)
def test_a_routing_rule_that_refuses_what_comes_in(routed: Routed, asks: str, kind: str) -> None:
    """To routing what comes in has no socket: it is bound to nothing, and the network's root's."""
    ip(routed, f"rule add pref 500 {asks} {kind}")
    for number, other in enumerate(OTHERS, 400):
        ip(routed, f"rule add pref {number} {other} {kind}")
    probed = send(routed)
    probed.check("blackhole-route", Outcome.DROPPED)
    assert f"{kind} routing rule (ip rule, priority 500)" in probed.diagnosis.summary
    works(routed, probed, 1)


@pytest.mark.parametrize("family", list(PacketFamily))
def test_a_routing_rule_that_refuses_what_a_user_sends(
    routed: Routed, family: PacketFamily
) -> None:
    six = "-6 " if family is PacketFamily.IPV6 else ""
    for number, other in enumerate((*OTHERS, f"uidrange {os.geteuid()}-{os.geteuid()}"), 400):
        run("ip", "-n", routed.netns, *f"{six}rule add pref {number} {other} prohibit".split())
    spec = ProbeSpec("tcp", routed.backend.address(family), PORT, wait=WAIT)
    probed = probe(spec, routed.netns)
    probed.check("blackhole-route", Outcome.DROPPED)
    number = 400 + len(OTHERS)
    assert f"prohibit routing rule (ip rule, priority {number})" in probed.diagnosis.summary
    assert "not judged" not in probed.evidence()
    follow(routed, probed.diagnosis.remedy[1])
    assert probe(spec, routed.netns).cause != "blackhole-route"


TOS = f"-t mangle -A PREROUTING -p tcp --dport {PORT} -j TOS --set-tos 0x10"


def test_a_routing_rule_for_a_field_that_a_rule_has_set(routed: Routed, iptables: Iptables) -> None:
    """A chain behind it reports the packet as it is then."""
    add(routed, iptables, TOS, "-t nat -A PREROUTING -p tcp --dport 9 -j REDIRECT")
    ip(routed, "rule add pref 400 dsfield 0x08 prohibit")
    ip(routed, "rule add pref 500 dsfield 0x10 prohibit")
    probed = send(routed)
    probed.check("blackhole-route", Outcome.DROPPED)
    works(routed, probed, 1)


def test_a_routing_rule_for_a_field_that_is_not_known_is_not_judged(routed: Routed) -> None:
    """Nft tells the headers once for each base chain: as they were before its rules."""
    Iptables(Backend.NFT)(routed.netns, PacketFamily.IPV4, *TOS.split())
    ip(routed, "rule add pref 500 dsfield 0x10 prohibit")
    ip(routed, "rule add pref 400 dport 443 prohibit")
    probed = send(routed)
    probed.check("kernel-drop", Outcome.DROPPED)
    assert "ip rule 500 asks for dsfield: not judged (inferred)" in probed.evidence()
    assert "ip rule 400" not in probed.evidence()


@full
def test_a_source_that_is_refused_is_not_blamed_on_a_rule_for_its_destination(
    routed: Routed,
) -> None:
    """A lookup answers EINVAL for a martian source, too."""
    ip(routed, "rule add pref 40000 dport 80 blackhole")
    ip(routed, "route add 192.0.2.0/24 dev eth1")
    run("ip", "-n", routed.client.netns, "address", "add", "192.0.2.9/32", "dev", "lo")
    set_sysctl(routed.netns, "net/ipv4/conf/eth0/rp_filter", "1")
    assert send(routed, "192.0.2.9").cause == "rp-filter"


# ------------------------------------------------------------------- looking


@pytest.mark.parametrize("family", list(PacketFamily))
def test_the_commands_that_show_a_chain(
    routed: Routed, iptables: Iptables, family: PacketFamily
) -> None:
    iptables(
        routed.netns, family, *["-t", "mangle", "-A", "FORWARD", "-j", "MARK", "--set-mark", "1"]
    )
    made = ChainRef(iptables.backend, family.table_family, "mangle", "FORWARD")
    assert "-A FORWARD -j MARK" in run(*show_chain(made).split(), netns=routed.netns)
    nft(routed, "table inet fw { chain forward { accept; }; }")
    native = ChainRef(Backend.NFT, TableFamily.INET, "fw", "forward")
    assert "accept # handle" in run(*show_chain(native).split(), netns=routed.netns)


# ------------------------------------------------------------------- what needs no remedy


def test_a_redirect_of_a_translated_connection_is_rightly_dropped(
    routed: Routed, iptables: Iptables
) -> None:
    for name in ("all", "eth0"):
        set_sysctl(routed.netns, f"net/ipv4/conf/{name}/send_redirects", "1")
    add(routed, iptables, f"-t nat -A PREROUTING -p tcp --dport {PORT} -j DNAT --to {OTHER}")
    came_in = ProbeSpec("tcp", routed.backend.ipv4, PORT, src=routed.client.ipv4)
    probed = probe(came_in, routed.netns, in_interface="eth0", let_out=True)
    (told,) = [each.diagnosis for each in probed.replies if each.packet.icmp is not None]
    assert told is not None
    assert told.summary.endswith("NAT lets no ICMP redirect of a translated connection out")
    assert told.remedy[0].startswith("nothing need be done")
