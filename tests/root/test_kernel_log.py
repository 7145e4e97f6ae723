"""Where NFLOG group 0 cannot be had, a trace is read from the kernel log, and all is put back."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from ipttrace.cli import event_sources
from ipttrace.cli.compose import trace_probe
from ipttrace.cli.event_sources import Sources
from ipttrace.cli.main import main
from ipttrace.errors import KernelError
from ipttrace.event import Event, Lost, TraceEvent, Undecoded
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.packet import Flow
from ipttrace.path import ChainHop, Hop, NatHop, PacketPath, Role, WireHop
from ipttrace.ports import EventSource
from ipttrace.probe import ProbeSpec, validate
from ipttrace.request import Armed, TraceRequest, Trigger
from ipttrace.result import TraceResult
from ipttrace.system import netlink_queue
from ipttrace.system.clock import SystemClock
from ipttrace.system.guardian import Guardian
from ipttrace.system.kernel_log import KernelLogSource
from ipttrace.system.netlink_queue import NetlinkQueue
from ipttrace.system.rulesets import NamespaceRules
from tests.root.kernel import (
    LOG_SETTINGS,
    Listeners,
    Namespaces,
    Pair,
    in_namespace,
    kernel_log_settings,
    run,
    set_sysctl,
)
from tests.root.log_listener import LogListener
from tests.root.watching import Watching
from tests.waiting import SLOW, wait_until

V4, V6 = PacketFamily.IPV4, PacketFamily.IPV6
PROGRAMS = {V4: "iptables", V6: "ip6tables"}
KERNEL_LOGGERS = {V4: "nf_log_ipv4", V6: "nf_log_ipv6"}
ALL_NAMESPACES = LOG_SETTINGS / "nf_log_all_netns"

RULES = """*raw
COMMIT
*mangle
-A PREROUTING -p tcp --dport 8445 -j MARK --set-mark 1
COMMIT
*nat
-A PREROUTING -p tcp --dport 8445 -j REDIRECT --to-ports 8443
-A OUTPUT -p tcp --dport 8445 -j REDIRECT --to-ports 8443
COMMIT
*filter
:U - [0:0]
:odd:rule:1 - [0:0]
-A INPUT -p tcp --dport 8443 -j U
-A INPUT -p udp -g odd:rule:1
-A INPUT -p udp -j DROP
-A INPUT -p tcp --dport 8446 -j REJECT --reject-with tcp-reset
-A INPUT -p tcp --dport 8447 -j DROP
-A U -m mark --mark 0x2 -j ACCEPT
-A U -p tcp -j RETURN
-A odd:rule:1 -p udp --dport 54 -j REJECT
COMMIT
"""
BESIDES = """table inet besides {
    chain early { type filter hook prerouting priority -310; meta mark set 0; }
    chain late { type filter hook input priority 5; meta l4proto tcp counter jump more; }
    chain more { counter; }
}
"""


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    """Keep the setting of the first namespace to ourselves; it must be as it was at the end."""
    with kernel_log_settings():
        before = ALL_NAMESPACES.read_text()
        yield
        wait_until(lambda: ALL_NAMESPACES.read_text() == before, what="nf_log_all_netns put back")


def everywhere() -> str:
    """Return whether all namespaces print to the kernel log."""
    return ALL_NAMESPACES.read_text().strip()


def loggers(netns: str) -> dict[PacketFamily, str]:
    """Return who gets the trace reports of a namespace."""
    files = {V4: LOG_SETTINGS / "nf_log/2", V6: LOG_SETTINGS / "nf_log/10"}
    return in_namespace(netns).run(
        lambda: {family: file.read_text().strip() for family, file in files.items()}
    )


def load(netns: str, rules: str = RULES) -> None:
    """Load legacy rules of both families."""
    for program in PROGRAMS.values():
        run(f"{program}-legacy-restore", netns=netns, stdin=rules)


def traced(netns: str, spec: ProbeSpec) -> TraceResult:
    """Trace a probe in `netns`."""
    return trace_probe(validate(spec), answer=lambda _: None, note=lambda _: None)


def coming_in(pair: Pair, family: PacketFamily, protocol: str, port: int | None) -> ProbeSpec:
    """Return a probe from the client's address into the server's interface."""
    server, client = pair.server, pair.client
    return ProbeSpec(
        protocol,
        server.address(family),
        port,
        src=client.address(family),
        in_interface=server.interface,
        netns=(server.netns,),
    )


def way(result: TraceResult) -> list[tuple[str, ...]]:
    """Return all packets' ways, one after the other, without times and ports that are random."""
    return [part for packet in packets_ways(result.paths) for part in packet]


def packets_ways(paths: Iterable[PacketPath]) -> list[list[tuple[str, ...]]]:
    """Return each packet's way.

    A SYN-ACK that is sent again, because the probe takes more than a second, counts once.
    """
    told: list[list[tuple[str, ...]]] = []
    for path in paths:
        reported = [hop for hop in path.hops if isinstance(hop, ChainHop | NatHop)]
        head, *hops = _head(path), *map(_words, reported)
        again = any((head[1:], hops) == (other[0][1:], other[1:]) for other in told)
        if path.role is not Role.REPLY or not again:
            told.append([head, *hops])
    return told


def ways_apart(result: TraceResult) -> list[list[tuple[str, ...]]]:
    """Return the packets' ways in no order, without the numbers that tell it.

    A queue tells no times: which namespace's reports came first is known as far as it is read.
    """
    return sorted(packets_ways(replace(path, id=0, request=None) for path in result.paths))


def _head(path: PacketPath) -> tuple[str, ...]:
    words = (path.id, path.role, path.outcome, path.request, path.ambiguous, path.in_interface)
    return (*map(str, words), path.packet.protocol, *path.packet.tcp_flags)


def _words(hop: Hop) -> tuple[str, ...]:
    if isinstance(hop, WireHop):
        return ("wire", hop.event, str(hop.interface))
    if isinstance(hop, NatHop):
        return ("nat", *(str(pair is not None) for pair in (hop.source, hop.destination)))
    assert isinstance(hop, ChainHop)
    place = (hop.chain, hop.hook, hop.event, hop.number, hop.verdict, hop.basis)
    return (*map(str, place), *(change.field for change in hop.changes))


def both_ways(pair: Pair, spec: ProbeSpec) -> tuple[TraceResult, TraceResult]:
    """Return a probe's results through NFLOG and, its group held, through the kernel log."""
    netns = pair.server.netns
    through_nflog = traced(netns, spec)
    with LogListener(netns):
        return through_nflog, traced(netns, spec)


# -- the answer is the same


@pytest.mark.parametrize("family", PacketFamily)
@pytest.mark.parametrize(
    ("protocol", "port"), [("tcp", 8445), ("tcp", 8446), ("udp", 53), ("udp", 54), ("echo", None)]
)
def test_a_probe_has_the_same_way_as_through_nflog(
    pair: Pair, listen: Listeners, family: PacketFamily, protocol: str, port: int | None
) -> None:
    load(pair.server.netns)
    listen(pair.server.netns, pair.server.address(family), 8443)
    word = {V4: "icmp", V6: "icmp6"}[family] if protocol == "echo" else protocol
    nflog, kernel = both_ways(pair, coming_in(pair, family, word, port))
    assert way(kernel) == way(nflog)
    assert kernel.totals.lost_events == 0
    for totals in (kernel.totals, nflog.totals):
        assert totals.complete == totals.packets > 0


@pytest.mark.parametrize(("address", "port"), [("127.0.0.1", 8445), ("::1", 8445), ("::1", 9)])
def test_a_local_probe_has_the_same_way_over_loopback(
    pair: Pair, listen: Listeners, address: str, port: int
) -> None:
    load(pair.server.netns)
    listen(pair.server.netns, "::", 8443)
    spec = ProbeSpec("tcp", address, port, netns=(pair.server.netns,))
    nflog, kernel = both_ways(pair, spec)
    assert way(kernel) == way(nflog)
    assert len(kernel.paths[0].chain_hops) > 8


def test_a_tee_clone_keeps_its_own_way(pair: Pair) -> None:
    """It is born inside the packet's own walk, and has the same headers."""
    netns = pair.server.netns
    load(netns)
    tee = ["-j", "TEE", "--gateway", pair.client.ipv4]
    run("iptables-legacy", "-t", "mangle", "-I", "PREROUTING", *tee, netns=netns)
    nflog, kernel = both_ways(pair, coming_in(pair, V4, "udp", 53))
    assert way(kernel) == way(nflog)
    assert len(kernel.paths) >= 2


def test_rules_in_both_backends_keep_their_order(pair: Pair, listen: Listeners) -> None:
    load(pair.server.netns)
    run("nft", "-f", "-", netns=pair.server.netns, stdin=BESIDES)
    listen(pair.server.netns, "0.0.0.0", 8443)
    nflog, kernel = both_ways(pair, coming_in(pair, V4, "tcp", 8445))
    assert way(kernel) == way(nflog)
    assert any("order" in warning for warning in kernel.warnings)


def test_packets_of_one_run_are_told_apart(pair: Pair) -> None:
    load(pair.server.netns)
    # Six errors at once to one host, then one a second (XRLIM_BURST_FACTOR, icmpv6_xrlim_allow).
    set_sysctl(pair.server.netns, "net/ipv6/icmp/ratelimit", "0")
    spec = coming_in(pair, V6, "udp", 53)
    nflog, kernel = both_ways(pair, replace(spec, count=5))
    assert way(kernel) == way(nflog)
    assert [path.role for path in kernel.paths].count(Role.PROBE) == 5


def test_a_probe_through_two_namespaces_has_a_leg_in_each(pair: Pair, listen: Listeners) -> None:
    """Both write to the one log, with interfaces of the same name."""
    client, server = pair.client.netns, pair.server.netns
    load(client, "*mangle\nCOMMIT\n*filter\nCOMMIT\n*raw\nCOMMIT\n")
    load(server)
    listen(server, "0.0.0.0", 8443)
    spec = ProbeSpec("tcp", pair.server.ipv4, 8443, netns=(client, server))
    nflog = traced(client, spec)
    with LogListener(client), LogListener(server):
        kernel = traced(client, spec)
    assert ways_apart(kernel) == ways_apart(nflog)
    legs = [(path.netns, path.leg) for path in kernel.paths if path.role is Role.PROBE]
    assert sorted(legs) == sorted([(client, 1), (server, 2)])


def test_a_watch_sees_the_packets_and_is_told_at_once_how(pair: Pair) -> None:
    netns = pair.server.netns
    load(netns)
    with LogListener(netns) as listener, Watching(netns, "udp dst port 53") as watching:
        assert listener.words in watching.notes[0]
        for _ in range(3):
            with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", (pair.server.ipv4, 53))
        watching.wait_for(3)
    seen = [path for path in watching.paths if path.packet.dport == 53]
    places = [str(hop.chain) for hop in seen[0].chain_hops]
    assert places[0].startswith("raw/")
    assert "filter/odd:rule:1" in places
    assert [[str(hop.chain) for hop in path.chain_hops] for path in seen] == [places] * 3


# -- what is said, and what it does to the other listener


def test_it_is_said_who_holds_the_group_and_what_that_means(pair: Pair) -> None:
    load(pair.server.netns)
    with LogListener(pair.server.netns) as listener:
        result = traced(pair.server.netns, coming_in(pair, V4, "udp", 53))
    held, deaf, everyone = result.warnings[:3]
    assert held.startswith(
        f"NFLOG group 0 is held by {listener.words}: reading the kernel log instead, "
    )
    assert deaf.startswith(f"until this session ends, {listener.words} gets no trace reports")
    assert "net.netfilter.nf_log.2" in deaf
    assert "net.netfilter.nf_log_all_netns=1" in everyone
    assert result.clean


def test_a_listener_that_left_the_loggers_alone_loses_nothing(pair: Pair) -> None:
    """ulogd2 binds the group, but no family, unless it is told to."""
    netns = pair.server.netns
    load(netns)
    with LogListener(netns, bind=False) as listener:
        result = traced(netns, coming_in(pair, V4, "udp", 53))
        assert loggers(netns) == KERNEL_LOGGERS
    assert not any(listener.words in warning for warning in result.warnings[1:])
    assert result.paths[0].chain_hops


def test_the_other_listener_hears_its_own_rules_throughout_and_traces_after(pair: Pair) -> None:
    netns = pair.server.netns
    load(netns)
    rule = ["-p", "udp", "-j", "NFLOG", "--nflog-prefix", "its own rule"]
    run("iptables-legacy", "-I", "INPUT", *rule, netns=netns)
    run("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "TRACE", netns=netns)
    with LogListener(netns) as listener:
        traced(netns, coming_in(pair, V4, "udp", 53))
        wait_until(lambda: "its own rule" in listener.heard)
        assert not any(prefix.startswith("TRACE") for prefix in listener.heard)
        before = len(listener.heard)
        with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", (pair.server.ipv4, 53))
        wait_until(lambda: any(p.startswith("TRACE") for p in listener.heard[before:]))
        wait_until(lambda: "its own rule" in listener.heard[before:])


def test_another_program_writes_to_the_log_what_looks_like_a_report(pair: Pair) -> None:
    netns = pair.server.netns
    load(netns)
    imitation = ["--log-prefix", "TRACE: filter:INPUT:rule:9 "]
    run("iptables-legacy", "-I", "INPUT", "-p", "udp", "-j", "LOG", *imitation, netns=netns)
    nflog, kernel = both_ways(pair, coming_in(pair, V4, "udp", 53))
    assert way(kernel) == way(nflog)
    assert any("left out" in warning for warning in kernel.warnings)


def test_what_another_namespace_says_of_the_same_packet_stays_out(
    pair: Pair, listen: Listeners
) -> None:
    """It has interfaces and chains of the same names."""
    load(pair.client.netns, "*mangle\nCOMMIT\n*filter\nCOMMIT\n")
    load(pair.server.netns)
    trace = ["-t", "raw", "-A", "OUTPUT", "-p", "tcp", "-j", "TRACE"]
    run("iptables-legacy", *trace, netns=pair.client.netns)
    listen(pair.server.netns, "0.0.0.0", 8443)
    netns = pair.server.netns
    spec = ProbeSpec("tcp", pair.server.ipv4, 8445, from_netns=pair.client.netns, netns=(netns,))
    nflog, kernel = both_ways(pair, spec)
    assert way(kernel) == way(nflog)
    assert any("left out" in warning for warning in kernel.warnings)


# -- settings, one session


ARMED = Armed(Trigger.RAW, frozenset({Backend.LEGACY}))


def asked(session: str) -> TraceRequest:
    """Return a request for all datagrams that come in."""
    flow = Flow(V4, "udp", "0.0.0.0", "0.0.0.0")
    return TraceRequest(session, flow=flow, backends=frozenset({Backend.LEGACY}))


class Session:
    """A session that reads legacy reports of a namespace, until the end of the block."""

    def __init__(self, netns: str, family: PacketFamily | None = V4) -> None:
        self.namespace = in_namespace(netns)
        self.name = secrets.token_hex(4)
        self.notes: list[str] = []
        self.guardian = Guardian.start(self.namespace, session=self.name, legacy=False)
        rules = NamespaceRules(self.namespace)
        self.sources = Sources(
            self.namespace, self.name, family, self.guardian, rules, SystemClock(), self.note
        )
        self._source: EventSource | None = None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def __enter__(self) -> Self:
        try:
            self._source = self.sources.open(asked(self.name), ARMED)
        except BaseException:
            self.guardian.disarm()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.guardian.disarm()
        self.source.close()

    @property
    def source(self) -> EventSource:
        assert self._source is not None
        return self._source


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only, its loggers as the kernel made them."""
    return namespaces.add("logged")


@pytest.mark.parametrize("family", [V4, V6, None])
def test_only_what_is_needed_is_changed_and_put_back(
    netns: str, family: PacketFamily | None
) -> None:
    bound = dict.fromkeys((V4, V6), "nfnetlink_log")
    changed = (V4, V6) if family is None else (family,)
    with LogListener(netns):
        with Session(netns, family):
            assert loggers(netns) == {**bound, **{each: KERNEL_LOGGERS[each] for each in changed}}
            assert everywhere() == "1"
        assert loggers(netns) == bound
        assert everywhere() == "0"


def test_a_namespace_without_a_logger_has_none_after(netns: str) -> None:
    in_namespace(netns).run(lambda: (LOG_SETTINGS / "nf_log/2").write_text("NONE"))
    with LogListener(netns, bind=False), Session(netns) as session:
        assert loggers(netns)[V4] == KERNEL_LOGGERS[V4]
        assert not any("gets no trace reports" in each for each in session.source.warnings)
    assert loggers(netns)[V4] == "NONE"


def test_what_somebody_else_changed_meanwhile_stays(netns: str) -> None:
    with LogListener(netns), Session(netns):
        in_namespace(netns).run(lambda: (LOG_SETTINGS / "nf_log/2").write_text("NONE"))
    assert loggers(netns)[V4] == "NONE"


def test_a_refused_group_leaves_the_loggers_as_they_were(netns: str) -> None:
    before = loggers(netns)
    with LogListener(netns, bind=False), pytest.raises(netlink_queue.LogGroupTakenError):
        NetlinkQueue(in_namespace(netns))
    assert loggers(netns) == before


def test_what_others_log_while_the_queue_opens_is_not_its_answer(netns: str) -> None:
    """Their rules log to the same group: the kernel puts these messages before its answers."""
    run("iptables-legacy", "-I", "OUTPUT", "-p", "udp", "-j", "NFLOG", netns=netns)
    enough = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            while not enough.is_set():
                client.sendto(b"x", ("127.0.0.1", 8445))

    sender = threading.Thread(target=in_namespace(netns).run, args=(send,))
    sender.start()
    try:
        for _ in range(100):
            with closing(NetlinkQueue(in_namespace(netns))) as queue:
                queue.announce()
                assert queue.position == 0
    finally:
        enough.set()
        sender.join()


def test_a_kernel_without_nfnetlink_log_has_its_own_log(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel answers so for every subsystem that it does not have."""
    monkeypatch.setattr(netlink_queue, "NFNL_SUBSYS_ULOG", 99)
    with Session(netns) as session:
        assert isinstance(session.source, KernelLogSource)
    assert session.source.warnings[0].startswith("the kernel has no nfnetlink_log: reading")


def test_without_legacy_rules_no_group_is_needed(netns: str) -> None:
    with LogListener(netns):
        session = Session(netns)
        queue = session.sources.open(replace(asked(session.name), backends=frozenset()), ARMED)
        assert isinstance(queue, NetlinkQueue)
        assert everywhere() == "0"
        queue.close()
        session.guardian.disarm()


# -- settings, several sessions


def test_the_last_session_of_a_namespace_puts_its_logger_back(netns: str) -> None:
    with LogListener(netns):
        with Session(netns):
            with Session(netns):
                pass
            assert loggers(netns)[V4] == KERNEL_LOGGERS[V4]
        assert loggers(netns)[V4] == "nfnetlink_log"


def test_the_last_session_of_all_namespaces_puts_their_setting_back(
    netns: str, namespaces: Namespaces
) -> None:
    other = namespaces.add("other")
    with ExitStack() as listeners, ExitStack() as sessions:
        for each in (netns, other):
            listeners.enter_context(LogListener(each))
        first = sessions.enter_context(Session(netns))
        sessions.enter_context(Session(other))
        first.guardian.disarm()
        assert loggers(netns)[V4] == "nfnetlink_log"
        assert everywhere() == "1"
        sessions.close()
        assert everywhere() == "0"


def test_a_session_beside_one_that_reads_the_log_does_not_make_it_deaf(netns: str) -> None:
    """The group is free by then, but binding it would take the reports away."""
    with LogListener(netns) as listener:
        first = Session(netns)
        first.__enter__()
        listener.__exit__()
    with Session(netns) as second:
        assert isinstance(second.source, KernelLogSource)
        assert "another session of ipttrace" in second.source.warnings[0]
    first.__exit__()


def test_another_session_that_holds_the_group_is_waited_for(
    netns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_sources, "LOG_GROUP_WAIT", 0.2)
    with Session(netns) as first:
        assert isinstance(first.source, NetlinkQueue)
        second = Session(netns)
        with pytest.raises(KernelError, match="NFLOG group 0"):
            second.__enter__()
        assert everywhere() == "0"
    assert len(second.notes) == 1
    assert "waiting up to 0.2 s" in second.notes[0]


# -- however a session ends

PARENT = """
import sys
from ipttrace.cli.event_sources import Sources
from ipttrace.cli.main import main
from ipttrace.netfilter import Backend
from ipttrace.request import Armed, TraceRequest, Trigger
from ipttrace.system.clock import SystemClock
from ipttrace.system.guardian import Guardian
from ipttrace.system.namespaces import find_namespace
from ipttrace.system.rulesets import NamespaceRules
namespace = find_namespace(sys.argv[1])
guardian = Guardian.start(namespace, session=sys.argv[2], legacy=False)
rules = NamespaceRules(namespace)
request = TraceRequest(sys.argv[2], backends=frozenset({Backend.LEGACY}))
sources = Sources(namespace, sys.argv[2], None, guardian, rules, SystemClock(), print)
source = sources.open(request, Armed(Trigger.RAW, request.backends))
print(guardian.pid, flush=True)
sys.stdin.read()
"""


def start_parent(netns: str) -> tuple[subprocess.Popen[str], int]:
    """Start a session that can be killed; return it and its guardian's process id."""
    words = [sys.executable, "-c", PARENT, netns, secrets.token_hex(4)]
    pipe = subprocess.PIPE
    parent = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def all_back(netns: str) -> bool:
    return everywhere() == "0" and set(loggers(netns).values()) == {"nfnetlink_log"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_session_leaves_no_setting(netns: str, number: signal.Signals) -> None:
    with LogListener(netns):
        parent, _ = start_parent(netns)
        assert not all_back(netns)
        parent.send_signal(number)
        parent.communicate()
        wait_until(lambda: all_back(netns), what="the guardian puts the settings back")


def test_the_session_puts_back_what_a_killed_guardian_left(netns: str) -> None:
    with LogListener(netns), Session(netns) as session:
        os.kill(session.guardian.pid, signal.SIGKILL)
        disarmed = session.guardian.disarm()
        assert set(loggers(netns).values()) == {"nfnetlink_log"}
        assert everywhere() == "0"
    assert disarmed.clean
    assert "net.netfilter.nf_log_all_netns" in disarmed.warnings[0]


def test_a_session_that_starts_after_a_killed_guardian_knows_what_was_before(netns: str) -> None:
    """The killed guardian's session still lives, and with it the name that says so."""
    with LogListener(netns):
        with Session(netns) as session:
            os.kill(session.guardian.pid, signal.SIGKILL)
            wait_until(lambda: not Path(f"/proc/{session.guardian.pid}/fd/0").exists())
            with Session(netns):
                session.guardian.disarm()
                assert everywhere() == "1"
        assert all_back(netns)


# -- the reader


def test_records_come_from_the_moment_of_opening(pair: Pair) -> None:
    """None is lost of a burst that the log can hold, and each comes once."""
    netns = pair.server.netns
    run("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-p", "udp", "-j", "TRACE", netns=netns)
    with LogListener(netns), Session(netns) as session:
        with pair.client.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for _ in range(50):
                client.sendto(b"x", (pair.server.ipv4, 9))
        ruleset = NamespaceRules(in_namespace(netns)).read(V4)
        events: list[Event] = []

        def reports() -> int:
            datagrams, overruns = session.source.drain()
            assert overruns == 0
            events.extend(session.source.decode(datagrams, ruleset))
            return sum(isinstance(event, TraceEvent) for event in events)

        wait_until(lambda: reports() >= 50)
    assert not any(isinstance(event, Lost | Undecoded) for event in events)
    assert reports_by_packet(events) == {1}


def reports_by_packet(events: list[Event]) -> set[int]:
    """Return how many reports there are of one packet."""
    found = [event.packet for event in events if isinstance(event, TraceEvent)]
    return set(Counter(packet.ip_id for packet in found if packet is not None).values())


def test_clean_puts_back_what_a_session_and_its_guardian_left(
    netns: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with LogListener(netns):
        kill_all(*start_parent(netns))
        assert everywhere() == "1"
        assert main(["clean", "--netns", netns]) == 0
        assert everywhere() == "0"
        assert "this host: removed net.netfilter.nf_log_all_netns=1" in capsys.readouterr().out
        assert main(["clean", "--netns", netns]) == 0
        assert "this host" not in capsys.readouterr().out


def test_clean_leaves_what_a_living_session_needs(netns: str) -> None:
    with LogListener(netns), Session(netns):
        assert main(["clean", "--netns", netns]) == 0
        assert everywhere() == "1"


def test_the_next_session_puts_back_what_a_session_and_its_guardian_left(
    netns: str, namespaces: Namespaces
) -> None:
    with LogListener(netns):
        kill_all(*start_parent(netns))
    other = namespaces.add("other")
    with LogListener(other), Session(other):
        assert everywhere() == "1"
    assert everywhere() == "0"


def kill_all(parent: subprocess.Popen[str], guardian: int) -> None:
    """Kill a session and its guardian before either can put anything back."""
    descriptor = os.pidfd_open(guardian)
    os.kill(guardian, signal.SIGSTOP)
    parent.kill()
    parent.communicate()
    os.kill(guardian, signal.SIGKILL)
    assert select.select([descriptor], [], [], 5 * SLOW)[0]
    os.close(descriptor)
