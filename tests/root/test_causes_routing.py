"""Packets that routing refuses: each cause by its proof, with the kernel's events and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.path import Decision, NatHop, Outcome, RouteHop
from ipttrace.probe import ProbeSpec
from tests.root.causes import TELLS_ROUTING, Probed, probe, rule_numbers
from tests.root.kernel import Iptables, Listeners, run, set_sysctl
from tests.root.routed import Routed

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
INJECT, REAL, LOCAL = "inject", "real", "local"
EARLY, WAIT = 4.0, 6.0
"""Seconds: what is proved early is told long before the time to wait is up."""

STRANGER = "192.0.2.9"
NOWHERE = {V4: "192.0.2.1", V6: "2001:db8:3::1"}
REFUSED_NET = {V4: "192.0.2.0/24", V6: "2001:db8:3::/64"}
ERRNO = {"blackhole": "EINVAL", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES"}
"""What connect() returns for a route of each type (fib_props in net/ipv4/fib_semantics.c)."""
DECISIONS = {
    "blackhole": Decision.BLACKHOLE,
    "unreachable": Decision.UNREACHABLE,
    "prohibit": Decision.PROHIBIT,
}

full = pytest.mark.full

Send = Callable[..., Probed]


def ways(*wanted: tuple[object, ...]) -> list[object]:
    """Return parameters of which only the first is of the default run."""
    return [pytest.param(*each, marks=[full] if n else []) for n, each in enumerate(wanted)]


BOTH = [(V4, INJECT), (V6, REAL), (V6, INJECT), (V4, REAL)]


def send(routed: Routed, way: str, dst: str, **words: object) -> Probed:
    """Send a TCP probe through the router, or from it; it may wait long."""
    family = V6 if ":" in dst else V4
    spec = ProbeSpec("tcp", dst, 80, wait=WAIT)
    if way == INJECT:
        words = {"src": routed.client.address(family), "in_interface": "eth0", **words}
    elif way == REAL:
        words["from_netns"] = routed.client.netns
    return probe(spec, routed.netns, **words)


def decisions(probed: Probed) -> list[Decision]:
    """Return what routing decided, in order."""
    return [hop.decision for hop in probed.hops(RouteHop) if isinstance(hop, RouteHop)]


def filter_sources(routed: Routed, mode: str) -> None:
    """Let the way back to the stranger lead out of eth1, and the router look at it."""
    run("ip", "-n", routed.netns, "route", "add", "192.0.2.0/24", "dev", "eth1")
    run("ip", "-n", routed.client.netns, "address", "add", f"{STRANGER}/32", "dev", "lo")
    set_sysctl(routed.netns, "net/ipv4/conf/eth0/rp_filter", mode)


@pytest.mark.parametrize("way", [INJECT, pytest.param(REAL, marks=full)])
def test_the_reverse_path_filter_is_named_with_the_way_back(routed: Routed, way: str) -> None:
    filter_sources(routed, "1")
    probed = send(routed, way, routed.backend.ipv4, src=STRANGER)
    probed.check("rp-filter", Outcome.DROPPED, within=EARLY)
    assert "the way back to 192.0.2.9 leads out of eth1" in probed.diagnosis.summary
    assert "IP_RPFILTER (reported)" in probed.evidence()
    assert "net/ipv4/conf/eth0/rp_filter = 1 (matched)" in probed.evidence()
    assert decisions(probed) == []


@pytest.mark.parametrize("mode", ["1", pytest.param("2", marks=full)])
def test_a_source_without_any_way_back_is_filtered_in_both_modes(routed: Routed, mode: str) -> None:
    filter_sources(routed, mode)
    probed = send(routed, INJECT, routed.backend.ipv4, src="100.64.0.1")
    probed.check("rp-filter", Outcome.DROPPED, within=EARLY)
    assert "there is no route back to 100.64.0.1" in probed.diagnosis.summary


@full
def test_a_loose_filter_lets_in_what_has_another_way_back(routed: Routed) -> None:
    filter_sources(routed, "2")
    probed = send(routed, INJECT, routed.backend.ipv4, src=STRANGER)
    assert probed.path.outcome is Outcome.FORWARDED
    assert probed.cause != "rp-filter"


def redirect_to_loopback(routed: Routed, iptables: Iptables) -> None:
    """Send port 80 of the router on to its 127.0.0.1."""
    rule = "-t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination 127.0.0.1:80"
    iptables(routed.netns, V4, *rule.split())


@pytest.mark.parametrize("way", [INJECT, pytest.param(REAL, marks=full)])
def test_a_packet_sent_on_to_loopback_is_a_martian(
    routed: Routed, iptables: Iptables, way: str
) -> None:
    redirect_to_loopback(routed, iptables)
    probed = send(routed, way, routed.router.ipv4)
    probed.check("martian-loopback", Outcome.DROPPED, within=EARLY)
    assert rule_numbers(probed) == ["nat/PREROUTING 1"]
    reason = "IP_LOCALNET" if TELLS_ROUTING else "NOT_SPECIFIED"
    assert f"{reason} (reported)" in probed.evidence()


@full
def test_loopback_may_be_opened_to_the_outside(
    routed: Routed, iptables: Iptables, listen: Listeners
) -> None:
    redirect_to_loopback(routed, iptables)
    set_sysctl(routed.netns, "net/ipv4/conf/eth0/route_localnet", "1")
    listen(routed.netns, "127.0.0.1", 80)
    send(routed, REAL, routed.router.ipv4).check("delivered", Outcome.DELIVERED)


def forward_nothing(routed: Routed) -> None:
    """Switch forwarding off, in both families."""
    set_sysctl(routed.netns, "net/ipv4/ip_forward", "0")
    set_sysctl(routed.netns, "net/ipv6/conf/all/forwarding", "0")


@pytest.mark.parametrize(("family", "way"), ways(*BOTH))
def test_a_host_that_does_not_forward_is_named_with_its_setting(
    routed: Routed, family: PacketFamily, way: str
) -> None:
    forward_nothing(routed)
    probed = send(routed, way, routed.backend.address(family))
    probed.check("forwarding-off", Outcome.DROPPED, within=EARLY)
    name = "net/ipv4/ip_forward" if family is V4 else "net/ipv6/conf/all/forwarding"
    assert f"{name} is 0" in probed.diagnosis.summary
    assert f"sysctl -w {name}=1" in probed.diagnosis.remedy[0]


@full
def test_an_interface_may_not_forward_alone(routed: Routed) -> None:
    set_sysctl(routed.netns, "net/ipv4/conf/eth0/forwarding", "0")
    probed = send(routed, INJECT, routed.backend.ipv4)
    probed.check("forwarding-off", Outcome.DROPPED, within=EARLY)
    assert "net/ipv4/conf/eth0/forwarding is 0" in probed.diagnosis.summary


@pytest.mark.parametrize(("family", "way"), ways(*BOTH[:1], (V6, LOCAL), *BOTH[1:], (V4, LOCAL)))
def test_no_route_is_named(routed: Routed, family: PacketFamily, way: str) -> None:
    probed = send(routed, way, NOWHERE[family])
    probed.check("no-route", Outcome.DROPPED, within=EARLY)
    assert f"there is no route to {NOWHERE[family]}" in probed.diagnosis.summary
    assert "RTM_GETROUTE finds none: ENETUNREACH (matched)" in probed.evidence()
    assert decisions(probed) == [Decision.UNREACHABLE]
    if way == LOCAL:
        assert probed.result.client == ("ENETUNREACH",)
        assert probed.path.chain_hops == ()


def test_no_route_in_a_clients_own_namespace_is_not_blamed_on_another(routed: Routed) -> None:
    run("ip", "-n", routed.client.netns, "route", "del", "default")
    probed = send(routed, REAL, routed.backend.ipv4)
    probed.check("no-route", Outcome.DROPPED, within=EARLY)
    assert "in the client's namespace" in probed.diagnosis.summary
    assert decisions(probed) == []


@pytest.mark.parametrize(
    ("family", "kind"), ways((V4, None), (V6, None), (V4, "unreachable"), (V6, "prohibit"))
)
def test_a_destination_that_output_gave_may_have_no_route(
    routed: Routed, iptables: Iptables, family: PacketFamily, kind: str | None
) -> None:
    """The kernel says only that a hook dropped it, behind all rules: NF_DROP_ERR of nat's own."""
    if kind is not None:
        run("ip", "-n", routed.netns, "route", "add", kind, REFUSED_NET[family])
    sent_on = ("-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "80", "-j", "DNAT")
    iptables(routed.netns, family, *sent_on, "--to-destination", NOWHERE[family])
    probed = send(routed, LOCAL, routed.backend.address(family))
    probed.check("blackhole-route" if kind else "no-route", Outcome.DROPPED, within=EARLY)
    assert f"{NOWHERE[family]}, the destination that nat/OUTPUT 1 gave it" in (
        probed.diagnosis.summary
    )
    assert rule_numbers(probed) == ["nat/OUTPUT 1"]
    refused = DECISIONS[kind] if kind else Decision.UNREACHABLE
    assert decisions(probed) == [Decision.OUTPUT, refused]


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_mark_that_output_gave_may_lead_to_no_route(
    routed: Routed, iptables: Iptables, family: PacketFamily
) -> None:
    version = "-4" if family is V4 else "-6"
    run("ip", "-n", routed.netns, version, "rule", "add", "fwmark", "7", "prohibit", "pref", "77")
    marked = ("-t", "mangle", "-A", "OUTPUT", "-p", "tcp", "-j", "MARK", "--set-mark", "7")
    iptables(routed.netns, family, *marked)
    probed = send(routed, LOCAL, routed.backend.address(family))
    probed.check("blackhole-route", Outcome.DROPPED, within=EARLY)
    assert "prohibit routing rule (ip rule, priority 77)" in probed.diagnosis.summary
    assert decisions(probed)[-1] is Decision.PROHIBIT


@pytest.mark.parametrize("kind", list(ERRNO))
@pytest.mark.parametrize(("family", "way"), ways(*BOTH[:1], (V6, LOCAL), *BOTH[1:], (V4, LOCAL)))
def test_a_route_that_refuses_is_named_with_its_type(
    routed: Routed, family: PacketFamily, way: str, kind: str
) -> None:
    run("ip", "-n", routed.netns, "route", "add", kind, REFUSED_NET[family])
    probed = send(routed, way, NOWHERE[family])
    probed.check("blackhole-route", Outcome.DROPPED, within=EARLY)
    assert f"{kind} route: {REFUSED_NET[family]} in table main" in probed.diagnosis.summary
    assert f"route del {kind} {REFUSED_NET[family]} table main" in probed.diagnosis.remedy[1]
    (hop,) = probed.hops(RouteHop)
    assert isinstance(hop, RouteHop)
    assert (hop.decision, hop.table, hop.out_interface) == (DECISIONS[kind], "main", None)
    if way == LOCAL:
        assert probed.result.client == (ERRNO[kind],)


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_routing_rule_that_refuses_is_named_with_its_priority(
    routed: Routed, family: PacketFamily
) -> None:
    source = routed.client.address(family)
    version = "-4" if family is V4 else "-6"
    rule = f"rule add from {source} prohibit pref 77"
    run("ip", "-n", routed.netns, version, *rule.split())
    probed = send(routed, INJECT, routed.backend.address(family))
    probed.check("blackhole-route", Outcome.DROPPED, within=EARLY)
    assert "prohibit routing rule (ip rule, priority 77)" in probed.diagnosis.summary


@pytest.mark.parametrize(("family", "way"), ways(*BOTH, (V4, LOCAL), (V6, LOCAL)))
def test_the_route_of_a_packet_that_goes_on_is_shown(
    routed: Routed, family: PacketFamily, way: str
) -> None:
    target = "192.0.2.1" if family is V4 else "2001:db8:3::1"
    gateway = routed.backend.address(family)
    version = "-4" if family is V4 else "-6"
    run("ip", "-n", routed.netns, version, "route", "add", target, "via", gateway)
    probed = send(routed, way, target, wait=0.5)
    (hop,) = probed.hops(RouteHop)
    assert isinstance(hop, RouteHop)
    decision = Decision.OUTPUT if way == LOCAL else Decision.FORWARD
    seen = (hop.decision, hop.out_interface, hop.via, hop.table)
    assert seen == (decision, "eth1", gateway, "main")
    if way == LOCAL:
        assert hop.source == routed.outside.address(family)


@full
@pytest.mark.parametrize(("family", "way"), BOTH)
def test_the_route_of_a_packet_that_stays_is_that_of_the_local_table(
    routed: Routed, family: PacketFamily, way: str
) -> None:
    (hop,) = send(routed, way, routed.router.address(family)).hops(RouteHop)
    assert isinstance(hop, RouteHop)
    assert (hop.decision, hop.table, hop.via) == (Decision.LOCAL, "local", None)


BLIND_WAIT = 0.7


@pytest.mark.usefixtures("blind")
class TestWithoutEvents:
    """Counters, settings and tables prove the same causes, by their own strength."""

    def test_rp_filter(self, routed: Routed) -> None:
        filter_sources(routed, "1")
        probed = send(routed, INJECT, routed.backend.ipv4, src=STRANGER, wait=BLIND_WAIT)
        probed.check("rp-filter", Outcome.DROPPED)
        assert "TcpExt.IPReversePathFilter rose by 1 (matched)" in probed.evidence()
        assert "(reported)" not in probed.evidence()

    def test_martian_loopback(self, routed: Routed, iptables: Iptables) -> None:
        redirect_to_loopback(routed, iptables)
        probed = send(routed, INJECT, routed.router.ipv4, wait=BLIND_WAIT)
        probed.check("martian-loopback", Outcome.DROPPED)

    @pytest.mark.parametrize("family", ways((V4,), (V6,)))
    def test_forwarding_off(self, routed: Routed, family: PacketFamily) -> None:
        forward_nothing(routed)
        probed = send(routed, INJECT, routed.backend.address(family), wait=BLIND_WAIT)
        probed.check("forwarding-off", Outcome.DROPPED)
        assert "InAddrErrors rose by 1 (matched)" in probed.evidence()

    @pytest.mark.parametrize("family", ways((V4,), (V6,)))
    def test_no_route(self, routed: Routed, family: PacketFamily) -> None:
        probed = send(routed, INJECT, NOWHERE[family], wait=BLIND_WAIT)
        probed.check("no-route", Outcome.DROPPED)
        assert "InNoRoutes rose by 1 (matched)" in probed.evidence()
        assert decisions(probed) == [Decision.UNREACHABLE]

    @pytest.mark.parametrize(("family", "kind"), ways(*((f, k) for k in ERRNO for f in (V4, V6))))
    def test_blackhole_route(self, routed: Routed, family: PacketFamily, kind: str) -> None:
        run("ip", "-n", routed.netns, "route", "add", kind, REFUSED_NET[family])
        probed = send(routed, INJECT, NOWHERE[family], wait=BLIND_WAIT)
        probed.check("blackhole-route", Outcome.DROPPED)
        assert decisions(probed) == [DECISIONS[kind]]

    @full
    @pytest.mark.parametrize("kind", list(ERRNO))
    def test_a_call_that_is_refused(self, routed: Routed, kind: str) -> None:
        run("ip", "-n", routed.netns, "route", "add", kind, REFUSED_NET[V4])
        probed = send(routed, LOCAL, NOWHERE[V4])
        probed.check("blackhole-route", Outcome.DROPPED, within=EARLY)


def test_backends_are_those_under_test(routed: Routed, backend: Backend) -> None:
    probed = send(routed, INJECT, routed.backend.ipv4)
    assert str(backend) in probed.result.backends


# ---------------------------------------------------------------- what comes from 127.0.0.0/8


def test_what_comes_from_loopback_does_not_leave(
    routed: Routed, iptables: Iptables, listen: Listeners
) -> None:
    """As with a port of kube-proxy's that is called by 127.0.0.1; carried out, the remedy helps."""
    listen(routed.backend.netns, routed.backend.ipv4, 80)
    netns, to = routed.netns, f"{routed.backend.ipv4}:80"
    nat = ("-t", "nat", "-A")
    iptables(netns, V4, *nat, "OUTPUT", "-p", "tcp", "--dport", "8000", "-j", "DNAT", "--to", to)
    iptables(netns, V4, *nat, "POSTROUTING", "-o", "eth1", "-j", "MASQUERADE")
    spec = ProbeSpec("tcp", "127.0.0.1", 8000, wait=WAIT)
    probed = probe(spec, netns)
    probed.check("martian-loopback", Outcome.DROPPED)
    assert rule_numbers(probed) == ["nat/OUTPUT 1"]
    assert "no packet from 127.0.0.0/8 may leave by eth1" in probed.diagnosis.summary
    command = probed.diagnosis.remedy[1].rpartition(": ")[2]
    run(*command.split(), netns=netns)
    assert probe(spec, netns).result.client == ("CONNECTED",)


def test_a_call_to_a_broadcast_address_lacks_no_route(routed: Routed) -> None:
    probed = send(routed, LOCAL, "198.51.100.255")
    probed.check("kernel-drop", Outcome.DROPPED)
    assert "198.51.100.255 is a broadcast address" in probed.diagnosis.summary
    assert Decision.UNREACHABLE not in decisions(probed)


# ---------------------------------------------------------------- what a reset is not


def test_a_reset_of_a_rule_is_not_masqueraded(routed: Routed, iptables: Iptables) -> None:
    """nat/POSTROUTING is asked, for the connection; the reset goes back as DNAT has it go."""
    netns, to = routed.netns, f"{routed.backend.ipv4}:80"
    nat = ("-t", "nat", "-A")
    iptables(netns, V4, *nat, "PREROUTING", "-p", "tcp", "-j", "DNAT", "--to", to)
    iptables(netns, V4, *nat, "POSTROUTING", "-j", "MASQUERADE")
    reject = ("-j", "REJECT", "--reject-with", "tcp-reset")
    iptables(netns, V4, "-I", "FORWARD", "-p", "tcp", *reject)
    probed = send(routed, INJECT, routed.router.ipv4)
    probed.check("rule-reject", Outcome.REJECTED)
    (reset,) = probed.replies
    (asked,) = [hop for hop in reset.chain_hops if hop.chain.table == "nat" and hop.number]
    assert (str(asked.ref), asked.changes) == ("nat/POSTROUTING 1", ())
    (back,) = [hop for hop in reset.hops if isinstance(hop, NatHop)]
    assert back.source == (to, f"{routed.router.ipv4}:80")
