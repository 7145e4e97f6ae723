"""Hand-made rules: the whole way of a probe and of its answers, hop by hop.

Each probe is also held against `nft monitor trace`, the counters and the schema (`Trial`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ipttrace.cli.compose import trace_probe
from ipttrace.netfilter import Backend, Hook, PacketFamily, Verdict
from ipttrace.path import ChainHop, Hop, NatHop, Outcome, PacketPath, Role, WireHop
from ipttrace.probe import ProbeSpec
from ipttrace.request import Trigger
from ipttrace.result import TraceResult
from tests.root.footprint import check_untouched, look
from tests.root.kernel import Iptables, Listeners, Namespaces
from tests.root.oracle import Headers
from tests.root.random_rules import CLOSED, ECHO, OPEN, REJECTIONS
from tests.root.routed import Routed, address_words, build_routed
from tests.root.senders import Arrivals
from tests.root.trial import Trial

PORT = 40000


@dataclass
class Lab:
    """The router of client -- router -- backend, with the same rules in each of `backends`."""

    routed: Routed
    family: PacketFamily
    backends: tuple[Backend, ...]
    listen: Listeners
    listening: bool = False

    def address(self, name: str, port: int | None = None) -> str:
        """Return the address of `client`, `router`, `outside` or `backend`, as in a rule."""
        return address_words(getattr(self.routed, name), self.family, port)

    def injected(self, protocol: str = "tcp", port: int | None = OPEN, **words: Any) -> ProbeSpec:
        """Return a probe that comes in from the client, to the router unless `to` says else."""
        known: dict[str, Any] = {
            "dst": self.address(words.pop("to", "router")),
            "dport": port,
            "src": self.address("client"),
            "sport": None if port is None else PORT,
            "in_interface": "eth0",
            "netns": (self.routed.netns,),
        }
        return ProbeSpec(protocol, **{**known, **words})

    def real(self, protocol: str = "tcp", port: int | None = OPEN, **words: Any) -> ProbeSpec:
        """Return a probe of a real client, on the router unless `from_netns` says else."""
        made = {"src": None, "sport": None, "in_interface": None}
        return self.injected(protocol, port, **{**made, **words})

    def trace(self, rules: str, spec: ProbeSpec) -> TraceResult:
        """Load the rules into every backend, trace the probe, and check what can be checked."""
        trial = Trial(self.routed, spec, dict.fromkeys(self.backends, rules))
        if not self.listening:
            trial.listen(self.listen)
        self.listening = True
        trial.load()
        trial.probe()
        trial.forget_sentinels()
        trial.check_probe()
        return trial.result


@pytest.fixture
def routed(namespaces: Namespaces) -> Routed:
    """The client, the router, the backend."""
    return build_routed(namespaces)


@pytest.fixture
def lab(routed: Routed, family: PacketFamily, backend: Backend, listen: Listeners) -> Lab:
    """A lab with the rules in one backend."""
    return Lab(routed, family, (backend,), listen)


def way(path: PacketPath) -> list[str]:
    """Return what rules and conntrack did, and whether we stopped the packet at the way out.

    Not the ends of chains that let it pass, which not all have.
    """
    return [words(hop) for hop in path.hops if not passes(hop)]


def passes(hop: Hop) -> bool:
    if isinstance(hop, WireHop):
        return hop.event != "contained"
    if isinstance(hop, NatHop):
        return False
    return not isinstance(hop, ChainHop) or (hop.number is None and hop.verdict is not Verdict.DROP)


def words(hop: Hop) -> str:
    if isinstance(hop, NatHop):
        changes = filter(None, (hop.source, hop.destination))
        return f"nat {', '.join(f'{old} > {new}' for old, new in changes)}"
    if isinstance(hop, WireHop):
        return f"wire {hop.event} {hop.interface}"
    assert isinstance(hop, ChainHop)
    changed = [f"{change.field}:{change.old}>{change.new}" for change in hop.changes]
    return " ".join([str(hop.chain), str(hop.number or hop.event), str(hop.verdict), *changed])


def only(result: TraceResult, role: Role) -> PacketPath:
    """Return the one path of that role."""
    (path,) = [path for path in result.paths if path.role is role]
    return path


def answered(result: TraceResult) -> tuple[PacketPath, PacketPath]:
    """Return the probe and its only answer."""
    probe, reply = only(result, Role.PROBE), only(result, Role.REPLY)
    assert reply.request == probe.id
    return probe, reply


NESTED = """*filter
:A - [0:0]
:B - [0:0]
:C - [0:0]
-A INPUT -p udp -j DROP
-A INPUT -j A
-A INPUT -p tcp -g C
-A INPUT -j DROP
-A A -m mark --mark 0x9 -j ACCEPT
-A A -j B
-A A -j RETURN
-A A -j DROP
-A B -j LOG
-A B -p tcp -g C
-A B -j DROP
-A C
-A C -p udp -j DROP
COMMIT
"""


def test_jump_goto_and_return(lab: Lab) -> None:
    """A chain that was gone to from B returns to B's caller, one from INPUT to the policy."""
    probe, reply = answered(lab.trace(NESTED, lab.injected()))
    assert way(probe) == [
        "filter/INPUT 2 JUMP",
        "filter/A 2 JUMP",
        "filter/B 1 CONTINUE",
        "filter/B 2 GOTO",
        "filter/C 1 CONTINUE",
        "filter/A 3 RETURN",
        "filter/INPUT 3 GOTO",
        "filter/C 1 CONTINUE",
    ]
    assert probe.outcome is Outcome.DELIVERED
    assert way(reply) == ["wire contained eth0"]
    assert reply.outcome is Outcome.SENT
    assert reply.packet.tcp_flags == ("SYN", "ACK")


def test_unconditional_last_rules_and_the_policy(lab: Lab) -> None:
    rules = "*filter\n:INPUT DROP [0:0]\n:U - [0:0]\n-A INPUT -j U\n-A U -j RETURN\nCOMMIT\n"
    probe = only(lab.trace(rules, lab.injected()), Role.PROBE)
    assert way(probe) == ["filter/INPUT 1 JUMP", "filter/U 1 RETURN", "filter/INPUT policy DROP"]
    assert probe.outcome is Outcome.DROPPED


def test_a_mark_that_a_later_rule_drops(lab: Lab) -> None:
    rules = (
        "*mangle\n-A PREROUTING -p tcp --dport 8443 -j MARK --set-xmark 0x1/0x1\nCOMMIT\n"
        "*filter\n-A INPUT -m mark --mark 0x1 -j DROP\nCOMMIT\n"
    )
    result = lab.trace(rules, lab.injected())
    (probe,) = result.paths
    assert way(probe) == ["mangle/PREROUTING 1 CONTINUE mark:0>1", "filter/INPUT 1 DROP"]
    assert probe.outcome is Outcome.DROPPED


def test_a_connections_mark_comes_back_on_the_reply(lab: Lab) -> None:
    rules = (
        "*mangle\n-A PREROUTING -j MARK --set-xmark 0x7/0xffffffff\n"
        "-A PREROUTING -j CONNMARK --save-mark\n"
        "-A OUTPUT -j CONNMARK --restore-mark\nCOMMIT\n"
        "*filter\n-A OUTPUT -m mark --mark 0x7 -j ACCEPT\nCOMMIT\n"
    )
    probe, reply = answered(lab.trace(rules, lab.injected()))
    assert way(probe) == ["mangle/PREROUTING 1 CONTINUE mark:0>7", "mangle/PREROUTING 2 CONTINUE"]
    assert way(reply) == [
        "mangle/OUTPUT 1 CONTINUE mark:0>7",
        "filter/OUTPUT 1 ACCEPT",
        "wire contained eth0",
    ]


def test_dnat_and_masquerade(lab: Lab) -> None:
    rules = (
        f"*nat\n-A PREROUTING -p tcp --dport 1111 -j DNAT --to {lab.address('backend', OPEN)}\n"
        "-A POSTROUTING -o eth1 -j MASQUERADE\nCOMMIT\n"
    )
    result = lab.trace(rules, lab.injected(port=1111))
    (probe,) = result.paths
    router, backend = lab.address("router"), lab.address("backend")
    client, outside = lab.address("client"), lab.address("outside")
    assert way(probe) == [
        f"nat/PREROUTING 1 ACCEPT dst:{router}>{backend} dport:1111>{OPEN}",
        f"nat/POSTROUTING 1 ACCEPT src:{client}>{outside}",
        f"nat {lab.address('client', PORT)} > {lab.address('outside', PORT)}",
        "wire contained eth1",
    ]
    assert (probe.outcome, probe.out_interface) == (Outcome.FORWARDED, "eth1")


def test_redirect(lab: Lab) -> None:
    rules = f"*nat\n-A PREROUTING -p tcp --dport 8445 -j REDIRECT --to-ports {OPEN}\nCOMMIT\n"
    probe, reply = answered(lab.trace(rules, lab.injected(port=8445)))
    assert way(probe) == [f"nat/PREROUTING 1 ACCEPT dport:8445>{OPEN}"]
    assert probe.outcome is Outcome.DELIVERED
    assert way(reply) == [
        f"nat {lab.address('router', OPEN)} > {lab.address('router', 8445)}",
        "wire contained eth0",
    ]


ERRORS = {
    "icmp-net-unreachable": (3, 0),
    "icmp-host-unreachable": (3, 1),
    "icmp-proto-unreachable": (3, 2),
    "icmp-port-unreachable": (3, 3),
    "icmp-net-prohibited": (3, 9),
    "icmp-host-prohibited": (3, 10),
    "icmp-admin-prohibited": (3, 13),
    "icmp6-no-route": (1, 0),
    "icmp6-adm-prohibited": (1, 1),
    "icmp6-addr-unreachable": (1, 3),
    "icmp6-port-unreachable": (1, 4),
    "icmp6-policy-fail": (1, 5),
    "icmp6-reject-route": (1, 6),
}
"""Type and code (RFC 792, RFC 1812 section 5.2.7, RFC 4443 section 3.1)."""


def test_every_kind_of_error_is_covered() -> None:
    assert {word for each in REJECTIONS.values() for word in each} == set(ERRORS)


@pytest.mark.parametrize("kind", sorted(ERRORS))
@pytest.mark.parametrize("hook", ["INPUT", "FORWARD"])
def test_reject_with_an_error(
    routed: Routed, backend: Backend, listen: Listeners, kind: str, hook: str
) -> None:
    family = PacketFamily.IPV6 if kind.startswith("icmp6") else PacketFamily.IPV4
    lab = Lab(routed, family, (backend,), listen)
    rules = f"*filter\n-A {hook} -p udp -j REJECT --reject-with {kind}\nCOMMIT\n"
    to = "router" if hook == "INPUT" else "backend"
    probe, reply = answered(lab.trace(rules, lab.injected("udp", to=to)))
    assert way(probe) == [f"filter/{hook} 1 REJECT"]
    assert probe.outcome is Outcome.REJECTED
    assert reply.packet.icmp is not None
    assert (reply.packet.icmp.type, reply.packet.icmp.code) == ERRORS[kind]
    assert way(reply) == ["wire contained eth0"]


def test_reject_with_a_reset(lab: Lab) -> None:
    rules = "*filter\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset\nCOMMIT\n"
    probe, reply = answered(lab.trace(rules, lab.injected()))
    assert way(probe) == ["filter/INPUT 1 REJECT"]
    assert probe.outcome is Outcome.REJECTED
    assert reply.packet.tcp_flags == ("RST", "ACK")


def test_reject_of_what_is_made_here(lab: Lab) -> None:
    rules = "*filter\n-A OUTPUT -p tcp -j REJECT\nCOMMIT\n"
    result = lab.trace(rules, lab.real(to="backend"))
    probe = only(result, Role.PROBE)
    assert way(probe) == ["filter/OUTPUT 1 REJECT"]
    assert probe.outcome is Outcome.REJECTED


NOTHING = "*filter\n-A INPUT\nCOMMIT\n"


def test_a_closed_port_resets(lab: Lab) -> None:
    probe, reply = answered(lab.trace(NOTHING, lab.injected(port=CLOSED)))
    assert way(probe) == ["filter/INPUT 1 CONTINUE"]
    assert probe.outcome is Outcome.REFUSED
    assert reply.packet.tcp_flags == ("RST", "ACK")
    assert reply.outcome is Outcome.SENT


def test_a_closed_udp_port_is_unreachable(lab: Lab) -> None:
    probe, reply = answered(lab.trace(NOTHING, lab.injected("udp", CLOSED)))
    assert probe.outcome is Outcome.REFUSED
    assert reply.packet.icmp is not None
    expected = (3, 3) if lab.family is PacketFamily.IPV4 else (1, 4)
    assert (reply.packet.icmp.type, reply.packet.icmp.code) == expected


def test_an_open_udp_port_takes_the_datagram(lab: Lab) -> None:
    (probe,) = lab.trace(NOTHING, lab.injected("udp")).paths
    assert probe.outcome is Outcome.DELIVERED


def test_an_echo_is_answered(lab: Lab) -> None:
    result = lab.trace(NOTHING, lab.injected(ECHO[lab.family], None))
    probe, reply = answered(result)
    assert way(probe) == ["filter/INPUT 1 CONTINUE"]
    assert probe.outcome is Outcome.DELIVERED
    assert reply.packet.icmp is not None
    assert reply.packet.icmp.type == (0 if lab.family is PacketFamily.IPV4 else 129)
    assert way(reply) == ["wire contained eth0"]


def test_notrack(lab: Lab) -> None:
    rules = (
        "*raw\n-A PREROUTING -p tcp -j CT --notrack\nCOMMIT\n"
        "*nat\n-A PREROUTING -p tcp -j REDIRECT --to-ports 1\nCOMMIT\n"
        "*filter\n-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT\n-A INPUT -j DROP\nCOMMIT\n"
    )
    probe, reply = answered(lab.trace(rules, lab.injected()))
    assert way(probe) == ["raw/PREROUTING 1 CONTINUE", "filter/INPUT 1 ACCEPT"]
    assert probe.outcome is Outcome.DELIVERED
    assert way(reply) == ["wire contained eth0"]


def test_a_copy_is_a_packet_of_its_own(lab: Lab) -> None:
    rules = (
        f"*mangle\n-A PREROUTING -i eth0 -j TEE --gateway {lab.address('backend')}\n"
        "-A PREROUTING -j MARK --set-xmark 0x1/0x1\n"
        "-A POSTROUTING -o eth1 -j MARK --set-xmark 0x2/0x2\nCOMMIT\n"
    )
    result = lab.trace(rules, lab.injected("udp"))
    probe, copy = only(result, Role.PROBE), only(result, Role.OBSERVED)
    assert way(probe) == ["mangle/PREROUTING 1 CONTINUE", "mangle/PREROUTING 2 CONTINUE mark:0>1"]
    assert probe.outcome is Outcome.DELIVERED
    assert way(copy) == ["mangle/POSTROUTING 1 CONTINUE mark:0>2", "wire contained eth1"]
    assert copy.outcome is Outcome.SENT
    assert not probe.ambiguous
    assert not copy.ambiguous


def test_a_copy_of_what_is_made_here(lab: Lab) -> None:
    rules = (
        "*mangle\n:U - [0:0]\n-A OUTPUT -j U\n-A OUTPUT -j LOG\n"
        f"-A U -j TEE --gateway {lab.address('client')}\n-A U -j LOG\nCOMMIT\n"
    )
    result = lab.trace(rules, lab.real("udp", to="backend", wait=0.3))
    probe, copy = only(result, Role.PROBE), only(result, Role.OBSERVED)
    hops = ["mangle/OUTPUT 1 JUMP", "mangle/U 1 CONTINUE", "mangle/U 2 CONTINUE"]
    hops += ["mangle/OUTPUT 2 CONTINUE"]
    assert (way(probe), probe.out_interface) == (hops, "eth1")
    assert (way(copy), copy.out_interface) == (hops, "eth0")
    assert not probe.ambiguous
    assert not copy.ambiguous


def test_a_local_connect_is_one_way_over_lo(lab: Lab) -> None:
    rules = (
        f"*nat\n-A OUTPUT -o lo -p tcp --dport 8445 -j REDIRECT --to-ports {OPEN}\nCOMMIT\n"
        "*mangle\n-A PREROUTING -i lo -j LOG\n-A POSTROUTING -o lo -j LOG\nCOMMIT\n"
        "*filter\n-A INPUT -i lo -j ACCEPT\nCOMMIT\n"
    )
    result = lab.trace(rules, lab.real(port=8445))
    probe = only(result, Role.PROBE)
    loopback = "127.0.0.1" if lab.family is PacketFamily.IPV4 else "::1"
    assert result.client == ("CONNECTED",)
    assert way(probe) == [
        f"nat/OUTPUT 1 ACCEPT dst:{lab.address('router')}>{loopback} dport:8445>{OPEN}",
        "mangle/POSTROUTING 1 CONTINUE",
        "mangle/PREROUTING 1 CONTINUE",
        "filter/INPUT 1 ACCEPT",
    ]
    assert probe.outcome is Outcome.DELIVERED
    (reply,) = [path for path in result.paths if path.request == probe.id and path.packet.tcp_ack]
    assert reply.packet.tcp_flags == ("SYN", "ACK")
    assert reply.outcome is Outcome.DELIVERED
    assert ("mangle/PREROUTING 1 CONTINUE" in way(reply)) and reply.in_interface is None


def test_a_real_client_in_another_namespace(lab: Lab) -> None:
    rules = "*filter\n-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\n-A FORWARD\nCOMMIT\n"
    result = lab.trace(rules, lab.real(to="backend", from_netns=lab.routed.client.netns))
    probe = only(result, Role.PROBE)
    assert result.client == ("CONNECTED",)
    assert way(probe) == ["filter/FORWARD 2 CONTINUE"]
    assert (probe.outcome, probe.in_interface, probe.out_interface) == ("forwarded", "eth0", "eth1")
    reply = next(path for path in result.paths if path.role is Role.REPLY)
    assert way(reply) == ["filter/FORWARD 1 ACCEPT"]
    assert (reply.outcome, reply.in_interface, reply.out_interface) == ("forwarded", "eth1", "eth0")


def test_three_packets_have_three_ways(lab: Lab) -> None:
    spec = lab.injected("udp", CLOSED, count=3, sport=None)
    result = lab.trace(NOTHING, spec)
    probes = [path for path in result.paths if path.role is Role.PROBE]
    replies = [path for path in result.paths if path.role is Role.REPLY]
    assert [way(probe) for probe in probes] == [["filter/INPUT 1 CONTINUE"]] * 3
    assert [reply.request for reply in replies] == [probe.id for probe in probes]
    assert [probe.outcome for probe in probes] == [Outcome.REFUSED] * 3
    assert len({probe.journey for probe in probes}) == 3


def test_size_and_ttl(lab: Lab) -> None:
    rules = "*filter\n-A INPUT -m length --length 1000 -j ACCEPT\n-A INPUT -j DROP\nCOMMIT\n"
    (probe,) = lab.trace(rules, lab.injected("udp", size=1000, ttl=7)).paths
    assert (probe.packet.length, probe.packet.ttl) == (1000, 7)
    assert way(probe) == ["filter/INPUT 1 ACCEPT"]


def test_a_time_to_live_that_ends_here(lab: Lab) -> None:
    rules = "*mangle\n-A PREROUTING\n-A FORWARD -j DROP\nCOMMIT\n"
    probe, reply = answered(lab.trace(rules, lab.injected("udp", to="backend", ttl=1)))
    assert way(probe) == ["mangle/PREROUTING 1 CONTINUE"]
    assert reply.packet.icmp is not None
    assert reply.packet.icmp.type == (11 if lab.family is PacketFamily.IPV4 else 3)
    assert probe.outcome not in (Outcome.FORWARDED, Outcome.DELIVERED)


def test_the_owner_trigger_shows_the_same_hops(lab: Lab) -> None:
    rules = "*raw\n-A PREROUTING -p tcp\n-A PREROUTING -j ACCEPT\nCOMMIT\n" + NESTED
    spec = lab.injected()
    raw = only(lab.trace(rules, spec), Role.PROBE)
    owner = lab.trace(rules, replace(spec, trigger=Trigger.OWNER, sport=PORT + 1))
    assert owner.trigger == "owner"
    assert way(only(owner, Role.PROBE)) == way(raw)
    assert way(raw)[:2] == ["raw/PREROUTING 1 CONTINUE", "raw/PREROUTING 2 ACCEPT"]


def test_rules_of_both_backends_are_one_way(
    routed: Routed, family: PacketFamily, listen: Listeners
) -> None:
    lab = Lab(routed, family, tuple(Backend), listen)
    rules = (
        "*mangle\n-A PREROUTING -j MARK --set-xmark 0x1/0x1\nCOMMIT\n"
        "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n"
    )
    result = lab.trace(rules, lab.injected())
    probe = only(result, Role.PROBE)
    assert result.backends == ("legacy", "nft")
    places = [(hop.chain.backend, str(hop.chain)) for hop in probe.chain_hops if hop.number]
    both = [
        (backend, name) for name in ("mangle/PREROUTING", "filter/INPUT") for backend in Backend
    ]
    assert sorted(places) == sorted(both)
    hooks = [list(Hook).index(hop.hook) for hop in probe.chain_hops if hop.hook]
    assert hooks == sorted(hooks)
    changes = [words(hop) for hop in probe.chain_hops if hop.changes]
    assert changes == ["mangle/PREROUTING 1 CONTINUE mark:0>1"]


@pytest.mark.parametrize("backend", [Backend.NFT])
def test_a_connect_that_is_sent_again_is_one_probe(lab: Lab) -> None:
    """The kernel sends a SYN again after a second (TCP_TIMEOUT_INIT)."""
    silent = ("-A", "INPUT", "-p", "tcp", "-j", "DROP")
    Iptables(Backend.LEGACY)(lab.routed.backend.netns, lab.family, *silent)
    result = lab.trace(NOTHING, lab.real(to="backend", wait=1.5))
    probe, again = only(result, Role.PROBE), only(result, Role.OBSERVED)
    assert result.client == ("TIMEOUT",)
    assert again.packet.tcp_seq == probe.packet.tcp_seq
    assert (probe.outcome, again.outcome) == (Outcome.SENT, Outcome.SENT)
    assert way(again) == way(probe)
    assert probe.time < again.time


def test_let_out(lab: Lab) -> None:
    rules = "*filter\n-A FORWARD\nCOMMIT\n"
    spec = lab.injected("udp", to="backend", let_out=True)
    with Arrivals(spec, lab.routed.backend) as arrivals:
        (probe,) = lab.trace(rules, spec).paths
        assert way(probe) == ["filter/FORWARD 1 CONTINUE"]
        assert probe.outcome is Outcome.FORWARDED
        headers = Headers(lab.address("client"), lab.address("backend"), PORT, OPEN)
        assert arrivals.look() == {(lab.routed.backend.netns, headers): 1}


def test_a_contained_probe_stays_inside(lab: Lab) -> None:
    rules = "*filter\n-A FORWARD\nCOMMIT\n"
    spec = lab.injected("udp", to="backend")
    with Arrivals(spec, lab.routed.backend) as arrivals:
        (probe,) = lab.trace(rules, spec).paths
        assert way(probe) == ["filter/FORWARD 1 CONTINUE", "wire contained eth1"]
        assert arrivals.look() == {}


def untraced(lab: Lab, rules: str) -> None:
    """Load rules without a probe."""
    Trial(lab.routed, lab.injected(), dict.fromkeys(lab.backends, rules)).load()


def test_rules_that_change_meanwhile(lab: Lab) -> None:
    """Somebody reloads the rules after the probe was sent: our own rule goes with the old ones."""
    rules = "*raw\n-A PREROUTING -p tcp\nCOMMIT\n" + NOTHING
    untraced(lab, rules)
    reloaded: list[bool] = []

    def reload() -> bool:
        if not reloaded:
            untraced(lab, rules)
            reloaded.append(True)
        return False

    result = trace_probe(
        lab.injected(port=CLOSED), answer=lambda _: None, note=pytest.fail, cancelled=reload
    )
    assert any("was gone at the end" in warning for warning in result.warnings), result.warnings
    assert result.clean
    saved = Iptables(lab.backends[0]).save(lab.routed.netns, lab.family)
    assert "ipttrace" not in saved


def probe_records(lab: Lab, sport: int) -> subprocess.Popen[str]:
    """Start `ipttrace probe --json` from that port."""
    program = Path(sys.executable).with_name("ipttrace")
    source = lab.address("client", sport)
    words = ("--netns", lab.routed.netns, "--in", "eth0", "--src", source, "--json")
    target = lab.address("router", CLOSED)
    return subprocess.Popen(
        [program, "probe", *words, "tcp", target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_probes_at_once_do_not_mix(lab: Lab) -> None:
    untraced(lab, NOTHING)
    before = look(lab.routed.netns, lab.family, lab.backends)
    running = {sport: probe_records(lab, sport) for sport in (PORT, PORT + 1)}
    for sport, process in running.items():
        out, errors = process.communicate(timeout=40)
        assert process.returncode == 0, errors
        *paths, summary = [json.loads(line) for line in out.splitlines()]
        probe, reply = paths
        assert (probe["role"], probe["outcome"], probe["packet"]["sport"]) == (
            "probe",
            "refused",
            sport,
        )
        assert (reply["role"], reply["request"]) == ("reply", probe["id"])
        assert [hop["table"] for hop in probe["hops"] if hop.get("rule_number")] == ["filter"]
        assert summary["clean"]
        assert summary["warnings"] == []
    check_untouched(before, look(lab.routed.netns, lab.family, lab.backends))
