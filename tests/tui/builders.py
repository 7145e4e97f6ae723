"""Snapshots of runs that the screen is tested with, and a feed that publishes them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from ipttrace.errors import IptTraceError
from ipttrace.netfilter import Backend, Basis, Hook, TableFamily, Verdict
from ipttrace.path import (
    Change,
    Diagnosis,
    Evidence,
    NatHop,
    Outcome,
    PacketPath,
    Role,
    Strength,
    Unmatched,
    WireHop,
)
from ipttrace.result import TraceTotals
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.packet_log import PacketLog
from tests.builders import (
    CLIENT,
    DROP_MARKED,
    MARK_RULE,
    TIME,
    article_rules,
    chain,
    chain_ref,
    local_path,
    mark_drop_path,
    path,
    policy_hop,
    redirect_path,
    reply_path,
    result,
    rule,
    rule_hop,
    ruleset,
    tcp,
    udp,
)

MARK_DROP = Diagnosis(
    "mark-drop",
    "dropped at filter/INPUT 1: it drops mark 0x1, which mangle/PREROUTING 1 had set",
    (
        rule(chain_ref("filter", "INPUT"), DROP_MARKED, 1).ref,
        rule(chain_ref("mangle", "PREROUTING"), MARK_RULE, 1).ref,
    ),
    (
        Evidence("the client sees a timeout", Strength.INFERRED),
        Evidence("kernel: NETFILTER_DROP", Strength.REPORTED),
    ),
    (Unmatched(rule(chain_ref("nat", "PREROUTING"), "", 1).ref, "--dport 8445", "8443"),),
    ("iptables-legacy -D INPUT 1", "or exempt it before mangle/PREROUTING 1"),
)


def dropped() -> PacketPath:
    """Return `article-complete` from outside to 8443, with its diagnosis."""
    return mark_drop_path(number=2, diagnosis=MARK_DROP)


def loopback() -> PacketPath:
    """Return `article-complete` from the server itself: marked on lo, and dropped."""
    return local_path(number=3, diagnosis=MARK_DROP)


def article(backend: Backend = Backend.LEGACY) -> Snapshot:
    """Return the three probes of `article-complete` and a reply, the run being over."""
    reply = replace(reply_path(), id=4)
    first = redirect_path(backend)
    return Snapshot.of(result(first, dropped(), loopback(), reply, client=["CONNECTED"]))


def ruled_article() -> Snapshot:
    """Return the article's packets with the rules that they met, and some that they did not."""
    rules = article_rules()
    others = ["-p tcp -m tcp --dport 22 -j ACCEPT", "-i lo -j ACCEPT"]
    filtering = chain("filter", "INPUT", [DROP_MARKED, *others])
    return replace(article(), rulesets={"server": rules | ruleset(filtering)})


def watched(count: int, log: PacketLog | None = None) -> PacketLog:
    """Return a log with so many packets more, of two kinds."""
    log = log if log is not None else PacketLog()
    start = len(log.view())
    for number in range(start + 1, start + count + 1):
        kind = redirect_path() if number % 3 else mark_drop_path(diagnosis=MARK_DROP)
        packet = replace(kind.packet, sport=40000 + number)
        role, now = Role.OBSERVED, TIME + number / 20
        log.append(replace(kind, id=number, packet=packet, role=role, time=now))
    return log


def watch_snapshot(log: PacketLog) -> Snapshot:
    """Return what a watch shows that is under way."""
    count = len(log.view())
    totals = TraceTotals(0, count, count)
    return Snapshot(
        log.view(),
        totals,
        backends=("legacy",),
        rulesets=ruled_article().rulesets,
        limit=20,
        missing="no kernel evidence",
    )


def forwarded() -> Snapshot:
    """Return a packet that went through the box and left with another source."""
    inner = "10.0.0.2"
    through = path(
        policy_hop("raw", "PREROUTING"),
        policy_hop("mangle", "PREROUTING"),
        policy_hop("nat", "PREROUTING"),
        policy_hop("mangle", "FORWARD"),
        rule_hop("filter", "FORWARD", 2, "-i eth0 -o eth1 -j ALLOWED"),
        rule_hop("filter", "ALLOWED", 1, "-p udp -m udp --dport 53 -j ACCEPT", hook=Hook.FORWARD),
        policy_hop("mangle", "POSTROUTING"),
        rule_hop("nat", "POSTROUTING", 1, "-o eth1 -j MASQUERADE"),
        NatHop(TIME, Basis.REPORTED, source=(f"{inner}:5353", "203.0.113.1:5353")),
        WireHop(TIME, "sent", "eth1"),
        outcome=Outcome.FORWARDED,
        packet=udp(inner, "198.51.100.53", sport=5353, dport=53),
        out_interface="eth1",
    )
    return Snapshot.of(result(through, client=["REPLIED"]))


def both_backends() -> Snapshot:
    """Return a packet that nf_tables accepts and ip_tables drops, beside a native nft table."""
    nft, inet = Backend.NFT, TableFamily.INET
    ruled = rule_hop(
        "fw",
        "input",
        1,
        "tcp dport 8443 accept",
        hook=Hook.INPUT,
        backend=nft,
        family=inet,
        verdict=Verdict.ACCEPT,
        priority=-5,
    )
    native = replace(ruled, target="accept")
    dead = path(
        policy_hop("raw", "PREROUTING"),
        policy_hop("raw", "PREROUTING", backend=nft),
        rule_hop("mangle", "PREROUTING", 1, MARK_RULE, Change("mark", 0, 1)),
        policy_hop("mangle", "PREROUTING"),
        policy_hop("nat", "PREROUTING", backend=nft),
        policy_hop("mangle", "INPUT"),
        native,
        policy_hop("filter", "INPUT", backend=nft),
        rule_hop("filter", "INPUT", 3, DROP_MARKED),
        outcome=Outcome.DROPPED,
    )
    warning = "rules in both iptables-legacy and nf_tables: a packet must pass both"
    return replace(Snapshot.of(result(dead)), warnings=(warning,))


def lossy() -> Snapshot:
    """Return a run in which the kernel threw events away."""
    whole = redirect_path()
    cut = replace(whole, id=2, hops=whole.hops[:3], outcome=Outcome.INCOMPLETE, ambiguous=True)
    totals = TraceTotals(50_000, 50_000, 48_912, 1_088, 2)
    return replace(Snapshot.of(result(whole, cut)), totals=totals)


def hostile() -> Snapshot:
    """Return a packet whose rule, interface and namespace try to reach the terminal."""
    comment = '-p tcp -m comment --comment "[red]\x1b[31mred[/red] [@click=app.quit]" -j DROP'
    bad = path(
        rule_hop("filter", "INPUT", 1, comment),
        outcome=Outcome.DROPPED,
        in_interface="e\x1b]0;x\x07th",
        netns="[bold]ns[/",
        packet=tcp(CLIENT, "198.51.100.1"),
    )
    return replace(Snapshot.of(result(bad)), warnings=("[b]\x1b[2Jcleared",))


class ListFeed:
    """Publishes snapshots, then raises, waits to be cancelled, or returns."""

    def __init__(
        self,
        snapshots: Iterable[Snapshot] = (),
        *,
        error: IptTraceError | None = None,
        waits: bool = False,
        live: bool = False,
        netns: tuple[str, ...] = (),
    ) -> None:
        self.live, self.netns = live, netns
        self.snapshots = tuple(snapshots)
        self.error = error
        self.waits = waits
        self.runs = 0
        self.cleaned = 0
        self.may_clean = threading.Event()
        self.may_clean.set()

    def run(self, publish: Callable[[Snapshot], None], cancelled: Callable[[], bool]) -> None:
        """Play the run; `may_clean` holds its clean-up back."""
        self.runs += 1
        try:
            for snapshot in self.snapshots:
                publish(snapshot)
            if self.error is not None:
                raise self.error
            pause = threading.Event()
            while self.waits and not cancelled():
                pause.wait(0.005)
        finally:
            self.may_clean.wait(10)
            self.cleaned += 1


def running(snapshot: Snapshot) -> Snapshot:
    """Return `snapshot` as it is before the run is over."""
    return replace(snapshot, state=RunState.RUNNING, message="")


def travelled() -> Snapshot:
    """Return a packet that a client made, a router forwarded and a server dropped."""
    sent = path(
        policy_hop("filter", "OUTPUT"),
        WireHop(TIME, "sent", "eth0"),
        netns="client",
        outcome=Outcome.SENT,
        in_interface=None,
        out_interface="eth0",
    )
    routed = path(
        policy_hop("raw", "PREROUTING"),
        rule_hop("filter", "FORWARD", 2, "-i eth0 -o eth1 -j ACCEPT"),
        WireHop(TIME, "sent", "eth1"),
        netns="router",
        outcome=Outcome.FORWARDED,
        out_interface="eth1",
    )
    dead = replace(dropped(), netns="server", in_interface="eth0")
    ways = [
        replace(each, id=leg, journey=1, leg=leg)
        for leg, each in enumerate((sent, routed, dead), 1)
    ]
    return Snapshot.of(result(*ways))
