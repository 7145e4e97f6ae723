"""Remedies are run as they are printed: what they promise is then seen on the real kernel."""

from __future__ import annotations

from typing import Any

import pytest

from ipttrace.diagnose.remedy import show_chain
from ipttrace.netfilter import Backend, ChainRef, PacketFamily, TableFamily
from ipttrace.path import Outcome
from ipttrace.probe import ProbeSpec
from tests.root.causes import Probed, probe, rule_numbers
from tests.root.kernel import Iptables, Listeners, Namespaces, run, set_sysctl
from tests.root.routed import Routed, build_routed

V4 = PacketFamily.IPV4
PORT, WAIT = 80, 6.0
OTHER = "198.51.100.77"
"""Another address of the client."""

full = pytest.mark.full
pytestmark = pytest.mark.root


def later(*wanted: tuple[object, ...]) -> list[Any]:
    """Return parameters that are not of the default run."""
    return [pytest.param(*each, marks=full) for each in wanted]


@pytest.fixture
def routed(namespaces: Namespaces, listen: Listeners) -> Routed:
    """Return client -- router -- backend, where a service listens."""
    made = build_routed(namespaces)
    listen(made.backend.netns, made.backend.ipv4, PORT)
    run("ip", "-n", made.client.netns, "address", "add", f"{OTHER}/24", "dev", "eth0")
    link = run("ip", "-n", made.client.netns, "-br", "link", "show", "eth0").split()[2]
    entry = f"neigh add {OTHER} lladdr {link} dev eth0 nud permanent"
    run("ip", "-n", made.netns, *entry.split())
    return made


def send(routed: Routed, src: str | None = None, **words: object) -> Probed:
    """Probe the backend by a real client."""
    spec = ProbeSpec("tcp", routed.backend.ipv4, PORT, src=src, wait=WAIT)
    return probe(spec, routed.netns, from_netns=routed.client.netns, **words)


def follow(routed: Routed, remedy: str) -> None:
    """Run the command of a remedy in the router."""
    run("sh", "-c", remedy.partition(": ")[2], netns=routed.netns)


def nft(routed: Routed, *lines: str) -> None:
    """Load native nft commands into the router."""
    run("nft", "-f", "-", netns=routed.netns, stdin="\n".join(lines))


def add(routed: Routed, iptables: Iptables, *lines: str) -> None:
    """Add rules to the router, each as words of iptables."""
    for line in lines:
        iptables(routed.netns, V4, *line.split())


def ip(routed: Routed, words: str) -> None:
    """Run a command of ip in the router."""
    run("ip", "-n", routed.netns, *words.split())


def works(routed: Routed, probed: Probed, number: int = 0) -> None:
    """Fail unless the remedy lets the packet and its answers pass."""
    follow(routed, probed.diagnosis.remedy[number])
    assert send(routed).cause == "answered"


# ------------------------------------------------------------------- verdict maps

FORWARD = "type filter hook forward priority 0; policy {};"


@pytest.mark.parametrize("number", [1, pytest.param(0, marks=full)])
def test_an_element_of_a_verdict_map(routed: Routed, number: int) -> None:
    nft(
        routed,
        "table inet fw {",
        "map svc { type inet_service : verdict; elements = { 22 : accept, 80 : drop }; }",
        f"chain forward {{ {FORWARD.format('drop')}",
        "ct state established,related accept; tcp dport vmap @svc; }",
        "}",
    )
    probed = send(routed)
    probed.check("rule-drop", Outcome.DROPPED)
    assert probed.diagnosis.summary.endswith("the rule drops tcp dport 80, an element of @svc")
    remedy = probed.diagnosis.remedy[number]
    if number == 0:
        works(routed, probed)
        return
    assert "(the policy DROP then decides)" in remedy
    follow(routed, remedy)
    assert send(routed).cause == "policy-drop"
    assert "22 : accept" in run("nft", "list", "ruleset", netns=routed.netns)


@full
def test_a_verdict_map_in_the_rule(routed: Routed) -> None:
    nft(
        routed,
        f"table inet fw {{ chain forward {{ {FORWARD.format('accept')}",
        "ct state established,related accept; meta l4proto vmap { tcp : drop, udp : accept }; }",
        "}",
    )
    probed = send(routed)
    assert probed.diagnosis.summary.endswith("the rule drops meta l4proto tcp")
    assert len(probed.diagnosis.remedy) == 1
    works(routed, probed)


# ------------------------------------------------------------------- lists of sources


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=full)])
def test_a_list_stays_shut_for_all_others(routed: Routed, iptables: Iptables, number: int) -> None:
    add(
        routed,
        iptables,
        "-N DENY",
        "-A DENY -m limit -j LOG",
        "-A DENY -j DROP",
        "-A FORWARD -s 198.51.100.0/25 -j DENY",
    )
    probed = send(routed)
    probed.check("rule-drop", Outcome.DROPPED)
    assert probed.diagnosis.summary.endswith("filter/FORWARD 1 sends there -s 198.51.100.0/25")
    assert rule_numbers(probed) == ["filter/DENY 2", "filter/FORWARD 1"]
    works(routed, probed, number)
    assert send(routed, OTHER).cause == ("rule-drop" if number == 0 else "answered")


@full
def test_a_native_list_stays_shut_for_all_others(routed: Routed) -> None:
    nft(
        routed,
        "table inet fw {",
        "set bad { type ipv4_addr; flags interval; elements = { 198.51.100.0/25 }; }",
        "chain deny { counter drop; }",
        f"chain forward {{ {FORWARD.format('accept')} ip saddr @bad counter jump deny; }}",
        "}",
    )
    probed = send(routed)
    assert probed.diagnosis.summary.endswith("fw/forward 1 sends there ip saddr @bad")
    works(routed, probed)
    assert send(routed, OTHER).cause == "rule-drop"


# ------------------------------------------------------------------- places


def test_what_prerouting_drops_on_its_way_through(routed: Routed, iptables: Iptables) -> None:
    add(routed, iptables, f"-t raw -A PREROUTING -p tcp --dport {PORT} -j DROP")
    probed = send(routed)
    assert probed.diagnosis.remedy[0].startswith("to let it through: ")
    works(routed, probed)
    assert send(routed, dst=routed.router.ipv4).cause == "rule-drop"


@pytest.mark.parametrize(
    ("hook", "match", "cause"),
    [
        ("ingress", "tcp sport", "asymmetric-reply"),
        pytest.param("egress", "tcp dport", "rule-drop", marks=full),
    ],
)
def test_a_chain_of_a_device(routed: Routed, hook: str, match: str, cause: str) -> None:
    nft(
        routed,
        "table netdev guard { chain at {",
        f"type filter hook {hook} device eth1 priority 0; policy accept;",
        f"{match} {PORT} drop; }}",
        "}",
    )
    probed = send(routed)
    assert probed.cause == cause
    works(routed, probed, -1 if hook == "ingress" else 0)


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=full)])
def test_a_ttl_that_a_rule_set(routed: Routed, iptables: Iptables, number: int) -> None:
    add(routed, iptables, f"-t mangle -A PREROUTING -p tcp --dport {PORT} -j TTL --ttl-set 1")
    probed = send(routed)
    probed.check("ttl-exceeded", Outcome.DROPPED)
    assert rule_numbers(probed) == ["mangle/PREROUTING 1"]
    works(routed, probed, number)


# ------------------------------------------------------------------- answers that are none


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=full)])
def test_one_zone_for_requests_and_another_for_answers(
    routed: Routed, iptables: Iptables, native: bool
) -> None:
    if native:
        zone = 'iifname "eth0" ct zone set 5;'
        nft(
            routed,
            "table inet z { chain pre { type filter hook prerouting priority raw; policy accept;",
            f"{zone} }}",
            "}",
        )
    else:
        add(routed, iptables, "-t raw -A PREROUTING -i eth0 -j CT --zone 5")
    add(
        routed,
        iptables,
        "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "-A FORWARD -i eth0 -m conntrack --ctstate NEW -j ACCEPT",
        "-A FORWARD -j DROP",
    )
    probed = send(routed)
    assert probed.cause == "asymmetric-reply"
    assert "filter/FORWARD 1 did not match it" in probed.diagnosis.summary
    assert "into conntrack zone 5, and no rule the answer (inferred)" in probed.evidence()
    works(routed, probed, -1)


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
        *later(("iif eth0 sport 1024-65000", "unreachable"), ("from 198.51.100.0/24", "prohibit")),
    ],
)
def test_a_routing_rule_that_refuses_what_comes_in(routed: Routed, asks: str, kind: str) -> None:
    ip(routed, f"rule add pref 500 {asks} {kind}")
    ip(routed, f"rule add pref 400 iif eth0 dport 443 {kind}")
    probed = send(routed)
    probed.check("blackhole-route", Outcome.DROPPED)
    assert f"{kind} routing rule (ip rule, priority 500)" in probed.diagnosis.summary
    works(routed, probed, 1)


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
