"""Packets that die on a link, in their own headers or by other hands: each cause by its proof."""

from __future__ import annotations

import pytest

from ipttrace.netfilter import PacketFamily
from ipttrace.path import DropHop, Outcome, Role, RouteHop, WireHop
from ipttrace.probe import ProbeSpec
from tests.root.bpf import (
    EGRESS,
    EGRESS_DROP,
    TC_ACT_SHOT,
    on_egress_of_this_process,
    on_traffic,
    returning,
    spoiling,
)
from tests.root.causes import TELLS_ROUTING, Probed, probe
from tests.root.kernel import Listeners, Pair, run, set_sysctl
from tests.root.routed import Routed

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
INJECT, REAL, LOCAL = "inject", "real", "local"
EARLY, WAIT = 4.0, 6.0
"""Seconds: what is proved early is told long before the time to wait is up."""

SILENT = {V4: "203.0.113.99", V6: "2001:db8:2::99"}
HEADER = {V4: 20, V6: 40}
MTU, LARGE = 1280, 1400
ECHO = {V4: "icmp", V6: "icmp6"}
CHECKSUM = {"tcp": 16, "udp": 6, "icmp": 2}
"""Where the checksum stands in the transport header."""

full = pytest.mark.full


def ways(*wanted: tuple[object, ...]) -> list[object]:
    """Return parameters of which only the first is of the default run."""
    return [pytest.param(*each, marks=[full] if n else []) for n, each in enumerate(wanted)]


BOTH = [(V4, INJECT), (V6, REAL), (V6, INJECT), (V4, REAL)]
FAMILIES = [(V4,), (V6,)]


def send(routed: Routed, way: str, dst: str, protocol: str = "tcp", **words: object) -> Probed:
    """Send a probe through the router, or from it; it may wait long."""
    family = V6 if ":" in dst else V4
    port = None if protocol.startswith("icmp") else 80
    spec = ProbeSpec(protocol, dst, port, wait=WAIT)
    if way == INJECT:
        words = {"src": routed.client.address(family), "in_interface": "eth0", **words}
    elif way == REAL:
        words["from_netns"] = routed.client.netns
    return probe(spec, routed.netns, **words)


def drops(probed: Probed) -> list[str]:
    """Return the reasons of the path's drop hops."""
    return [hop.reason for hop in probed.hops(DropHop) if isinstance(hop, DropHop)]


def give_up_soon(routed: Routed) -> None:
    """Let the router ask for a neighbour three times in 0.3 s instead of 3 s."""
    for version in ("ipv4", "ipv6"):
        set_sysctl(routed.netns, f"net/{version}/neigh/eth1/retrans_time_ms", "100")


@pytest.mark.parametrize(("family", "way"), ways((V4, REAL), (V6, LOCAL), *BOTH[:3], (V4, LOCAL)))
def test_a_neighbour_that_does_not_answer_is_named(
    routed: Routed, family: PacketFamily, way: str
) -> None:
    give_up_soon(routed)
    probed = send(routed, way, SILENT[family], let_out=way == INJECT)
    probed.check("neighbour-failed", Outcome.DROPPED, within=EARLY)
    assert f"the next host {SILENT[family]} does not answer" in probed.diagnosis.summary
    evidence = probed.evidence()
    assert f"waited for the link address of {SILENT[family]} on eth1 (reported)" in evidence
    assert "is FAILED (matched)" in evidence
    assert not any(hop.event == "sent" for hop in probed.hops(WireHop) if isinstance(hop, WireHop))
    if way != INJECT:
        assert probed.result.client == ("EHOSTUNREACH",)
    if way != LOCAL:
        assert drops(probed) == ["NEIGH_FAILED" if family is V4 else "NOT_SPECIFIED"]


def test_a_neighbour_that_is_still_asked_for_is_named_before_the_kernel_gives_up(
    routed: Routed,
) -> None:
    probed = send(routed, REAL, SILENT[V4], wait=0.5)
    probed.check("neighbour-failed", Outcome.DROPPED)
    assert "the kernel still asks" in probed.diagnosis.summary
    assert "is INCOMPLETE (matched)" in probed.evidence()


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_the_kernel_gives_up_after_three_seconds_where_there_is_time(
    routed: Routed, family: PacketFamily
) -> None:
    probed = send(routed, REAL, SILENT[family], wait=4.0)
    probed.check("neighbour-failed", Outcome.DROPPED)
    assert probed.result.client == ("EHOSTUNREACH",)


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_gateway_that_does_not_answer_is_called_one(routed: Routed, family: PacketFamily) -> None:
    give_up_soon(routed)
    target = "192.0.2.1" if family is V4 else "2001:db8:3::1"
    words = f"route add {target} via {SILENT[family]}".split()
    run("ip", "-n", routed.netns, "-4" if family is V4 else "-6", *words)
    probed = send(routed, REAL, target)
    probed.check("neighbour-failed", Outcome.DROPPED, within=EARLY)
    assert f"the gateway {SILENT[family]} does not answer" in probed.diagnosis.summary


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_neighbour_that_answers_is_not_called_silent(
    pair: Pair, family: PacketFamily, listen: Listeners
) -> None:
    listen(pair.server.netns, pair.server.address(family), 80)
    spec = ProbeSpec("tcp", pair.server.address(family), 80, wait=WAIT)
    probe(spec, pair.client.netns).check("answered", Outcome.SENT, within=EARLY)


@pytest.mark.parametrize(("family", "way"), ways(*BOTH))
def test_an_expired_ttl_is_named_with_the_error_that_answers_it(
    routed: Routed, family: PacketFamily, way: str
) -> None:
    probed = send(routed, way, routed.backend.address(family), ttl=1)
    probed.check("ttl-exceeded", Outcome.DROPPED, within=EARLY)
    word = "TTL" if family is V4 else "hop limit"
    assert f"its {word} was 1" in probed.diagnosis.summary
    assert drops(probed) == ["IP_INHDR"]
    errors = [each.packet.icmp for each in probed.replies if each.role is Role.REPLY]
    # A real client may hear the first error too early, and then sends its SYN again.
    assert {(icmp.type, icmp.code) for icmp in errors if icmp} == {(11 if family is V4 else 3, 0)}


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_ttl_of_two_is_enough_for_one_router(routed: Routed, family: PacketFamily) -> None:
    probed = send(routed, INJECT, routed.backend.address(family), ttl=2)
    assert probed.path.outcome is Outcome.FORWARDED
    assert probed.cause != "ttl-exceeded"


@pytest.mark.parametrize(("family", "way"), ways((V4, REAL), (V6, INJECT), (V6, REAL)))
def test_a_packet_too_large_for_the_way_is_named_with_both_sizes(
    routed: Routed, family: PacketFamily, way: str
) -> None:
    run("ip", "-n", routed.netns, "link", "set", "eth1", "mtu", str(MTU))
    probed = send(routed, way, routed.backend.address(family), "udp", size=LARGE)
    probed.check("mtu-exceeded", Outcome.DROPPED, within=EARLY)
    assert f"{LARGE} bytes are more than the MTU of eth1 ({MTU})" in probed.diagnosis.summary
    assert drops(probed) == ["PKT_TOO_BIG"]
    assert "went to" in probed.evidence()
    if way == REAL:
        assert probed.result.client == ("EMSGSIZE",)


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_packet_just_as_large_as_the_way_goes_on(routed: Routed, family: PacketFamily) -> None:
    run("ip", "-n", routed.netns, "link", "set", "eth1", "mtu", str(MTU))
    probed = send(routed, INJECT, routed.backend.address(family), "udp", size=MTU)
    assert probed.path.outcome is Outcome.FORWARDED


@pytest.mark.parametrize(
    ("family", "protocol"),
    ways(*((f, p) for p in ("tcp", "udp", "icmp") for f in (V4, V6))),
)
def test_a_wrong_transport_checksum_is_named(
    routed: Routed, family: PacketFamily, protocol: str
) -> None:
    with on_traffic(routed.router, spoiling(HEADER[family] + CHECKSUM[protocol], 0x1234)):
        word = ECHO[family] if protocol == "icmp" else protocol
        probed = send(routed, INJECT, routed.router.address(family), word)
    probed.check("bad-checksum", Outcome.DROPPED, within=EARLY)
    assert f"its {protocol.upper()} checksum is wrong" in probed.diagnosis.summary
    assert drops(probed) == [f"{protocol.upper()}_CSUM"]


@pytest.mark.parametrize("way", [INJECT, pytest.param(REAL, marks=full)])
def test_a_wrong_ip_checksum_is_named(routed: Routed, way: str) -> None:
    with on_traffic(routed.router, spoiling(10, 0x1234)):
        probed = send(routed, way, routed.backend.ipv4)
    probed.check("bad-checksum", Outcome.DROPPED, within=EARLY)
    assert "its IPv4 header checksum is wrong" in probed.diagnosis.summary
    assert probed.path.chain_hops == ()


@pytest.mark.parametrize(("family", "way"), ways(*BOTH))
def test_a_drop_by_tc_is_quoted(routed: Routed, family: PacketFamily, way: str) -> None:
    with on_traffic(routed.router, returning(TC_ACT_SHOT)):
        probed = send(routed, way, routed.backend.address(family))
    probed.check("kernel-drop", Outcome.DROPPED, within=EARLY)
    assert "TC_INGRESS in __netif_receive_skb_core" in probed.diagnosis.summary
    assert "tc filter show dev eth0 ingress" in "".join(probed.diagnosis.remedy)
    assert not any(isinstance(hop, RouteHop) for hop in probed.path.hops)


@full
@pytest.mark.parametrize("family", [V4, V6])
def test_a_drop_by_tc_on_the_way_out_is_quoted(routed: Routed, family: PacketFamily) -> None:
    with on_traffic(routed.outside, returning(TC_ACT_SHOT), EGRESS):
        probed = send(routed, LOCAL, routed.backend.address(family))
    probed.check("kernel-drop", Outcome.DROPPED, within=EARLY)
    assert drops(probed) == ["TC_EGRESS"]


@pytest.mark.parametrize(
    ("family", "protocol"), ways((V4, "tcp"), (V6, "tcp"), (V4, "udp"), (V6, "udp"))
)
def test_a_drop_by_a_control_group_is_quoted(
    routed: Routed, family: PacketFamily, protocol: str
) -> None:
    with on_egress_of_this_process(returning(EGRESS_DROP)):
        probed = send(routed, LOCAL, routed.backend.address(family), protocol)
    probed.check("kernel-drop", Outcome.DROPPED, within=EARLY)
    assert drops(probed) == ["BPF_CGROUP_EGRESS"]
    assert "BPF program of the sender's control group" in probed.diagnosis.summary


@full
def test_a_source_of_this_hosts_own_is_quoted(routed: Routed) -> None:
    probed = send(routed, INJECT, routed.backend.ipv4, src=routed.router.ipv4)
    probed.check("kernel-drop", Outcome.DROPPED, within=EARLY)
    reason = "IP_LOCAL_SOURCE" if TELLS_ROUTING else "NOT_SPECIFIED"
    assert reason in probed.diagnosis.summary


BLIND_WAIT = 0.7


@pytest.mark.usefixtures("blind")
class TestWithoutEvents:
    """Counters and tables prove the same causes, by their own strength."""

    @pytest.mark.parametrize(("family", "way"), ways((V4, REAL), (V6, REAL), (V4, LOCAL)))
    def test_neighbour_failed(self, routed: Routed, family: PacketFamily, way: str) -> None:
        give_up_soon(routed)
        probed = send(routed, way, SILENT[family])
        probed.check("neighbour-failed", Outcome.DROPPED, within=EARLY)
        assert "(matched)" in probed.evidence()

    @pytest.mark.parametrize("family", ways(*FAMILIES))
    def test_ttl_exceeded(self, routed: Routed, family: PacketFamily) -> None:
        probed = send(routed, INJECT, routed.backend.address(family), ttl=1, wait=BLIND_WAIT)
        probed.check("ttl-exceeded", Outcome.DROPPED)
        assert "InHdrErrors rose by 1 (matched)" in probed.evidence()

    @pytest.mark.parametrize("family", ways(*FAMILIES))
    def test_mtu_exceeded(self, routed: Routed, family: PacketFamily) -> None:
        run("ip", "-n", routed.netns, "link", "set", "eth1", "mtu", str(MTU))
        dst = routed.backend.address(family)
        probed = send(routed, REAL, dst, "udp", size=LARGE, wait=BLIND_WAIT)
        probed.check("mtu-exceeded", Outcome.DROPPED)
        assert "FragFails rose by 1 (matched)" in probed.evidence()

    @pytest.mark.parametrize("family", ways(*FAMILIES))
    def test_bad_checksum(self, routed: Routed, family: PacketFamily) -> None:
        with on_traffic(routed.router, spoiling(HEADER[family] + CHECKSUM["tcp"], 0x1234)):
            probed = send(routed, INJECT, routed.router.address(family), wait=BLIND_WAIT)
        probed.check("bad-checksum", Outcome.DROPPED)
        assert "Tcp.InCsumErrors rose by 1 (matched)" in probed.evidence()

    def test_nothing_is_made_up_for_a_drop_that_only_events_tell(self, routed: Routed) -> None:
        with on_traffic(routed.router, returning(TC_ACT_SHOT)):
            probed = send(routed, INJECT, routed.backend.ipv4, wait=BLIND_WAIT)
        probed.check("unknown", Outcome.LOST)
