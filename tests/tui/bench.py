"""A workbench of values for the screen's tests, and the screen with it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ipttrace.checkup.finding import Finding, note, ok, problem
from ipttrace.errors import IptTraceError
from ipttrace.inventory import Interface, Place, PlaceKind
from ipttrace.lab.parts import LabBackend
from ipttrace.lab.scenario import parse_scenario
from ipttrace.netfilter import Backend, Hook, TableFamily, Verdict
from ipttrace.probe import ProbeSpec
from ipttrace.ruleset import Chain, Counter, Ruleset
from ipttrace_tui.feed import Feed, Snapshot
from ipttrace_tui.workbench import LabEntry, LabUp
from tests.builders import DROP_MARKED, MARK_RULE, REDIRECT_RULE, chain
from tests.tui.builders import ListFeed, article

LAB = """
name: port-redirect
title: A port is redirected, and the old one closed
about: |
  REDIRECT rewrites the port before routing.
  The filter sees the new port only.
namespaces:
  client: {}
  router: {}
  server: {services: [{port: 8445}]}
links:
  - - {namespace: client, addresses: [198.51.100.2/24]}
    - {namespace: router, addresses: [198.51.100.1/24]}
  - - {namespace: router, interface: eth1, addresses: [10.0.0.1/24]}
    - {namespace: server, addresses: [10.0.0.2/24]}
claims:
  - {claim: The old port is closed, verdict: "half", why: Only from outside.}
probes:
  - name: outside 8443
    say: The packet comes to port 8445.
    send: tcp 198.51.100.1:8443
    in: eth0
    netns: [router]
    expect: {outcome: delivered}
"""

PLACES = (
    Place(
        None,
        PlaceKind.HERE,
        (
            Interface("lo", ("127.0.0.1/8", "::1/128")),
            Interface("eth0", ("192.0.2.2/24", "fd00::2/64")),
            Interface("eth1", (), up=False),
        ),
    ),
    Place(
        "server",
        PlaceKind.NAMED,
        (Interface("lo", ("127.0.0.1/8",)), Interface("eth0", ("198.51.100.1/24",), "veth")),
        "python3",
    ),
    Place("5c6f1d2e9a0b", PlaceKind.CONTAINER, (Interface("eth0", ("172.17.0.2/16",), "veth"),)),
)

FINDINGS = (
    ok("privilege", "root, with CAP_NET_ADMIN and CAP_NET_RAW"),
    note(
        "both backends",
        "rules in iptables-legacy and in nf_tables: a packet must pass both",
        "Move them into one: iptables-legacy-save > rules.v4, then iptables-nft-restore rules.v4",
    ),
    problem(
        "kernel log",
        "nf_log_all_netns is 0: what is reported in a namespace is not in the log",
        "sysctl -w net.netfilter.nf_log_all_netns=1",
    ),
)


def counted(chain_: Chain, *packets: int) -> Chain:
    """Return a chain whose rules have counted."""
    rules = tuple(
        replace(rule, counter=Counter(number, number * 60))
        for rule, number in zip(chain_.rules, packets, strict=True)
    )
    return replace(chain_, rules=rules)


def rules_of_article(factor: int = 1) -> Ruleset:
    """Return the rules that `article` met, in both backends, having counted."""
    user = replace(chain("filter", "ALLOWED", ["-p tcp -m tcp --dport 22 -j ACCEPT"]), hook=None)
    native = chain(
        "fw",
        "input",
        ["tcp dport 8443 counter accept"],
        backend=Backend.NFT,
        family=TableFamily.INET,
    )
    native = replace(native, hook=Hook.INPUT, priority=0, policy=Verdict.ACCEPT)
    chains = [
        chain("raw", "PREROUTING"),
        counted(chain("mangle", "PREROUTING", [MARK_RULE]), 7 * factor),
        chain("mangle", "INPUT"),
        counted(chain("nat", "PREROUTING", [REDIRECT_RULE]), 3),
        counted(chain("filter", "INPUT", [DROP_MARKED], policy=Verdict.ACCEPT), 4 * factor),
        chain("filter", "FORWARD", policy=Verdict.DROP),
        user,
        counted(native, 1_234_567 * factor),
    ]
    return Ruleset({each.ref: each for each in chains})


@dataclass
class FakeBench:
    """Gives what it was made with, and notes what was asked of it."""

    feed: Feed = field(default_factory=lambda: ListFeed([article()]))
    error: IptTraceError | None = None
    specs: list[ProbeSpec] = field(default_factory=list)
    started: list[tuple[str, LabBackend]] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    """Namespaces whose rules or findings were asked for."""
    up: LabUp | None = None
    closed: int = 0
    readings: int = 0
    may_read: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_read.set()

    def _come_to_it(self) -> None:
        self.may_read.wait(10)
        if self.error is not None:
            raise self.error

    def probe(self, spec: ProbeSpec) -> Feed:
        self.specs.append(spec)
        return self.feed

    def lab(self, name: str, backend: LabBackend) -> Feed:
        self.started.append((name, backend))
        self.up = LabUp(name, backend)
        return self.feed

    def lab_up(self) -> LabUp | None:
        return self.up

    def take_down(self) -> Sequence[str]:
        self.up = None
        return ("one namespace was busy",)

    def read_rules(self, netns: str | None) -> tuple[float, Ruleset]:
        self._come_to_it()
        self.asked.append(netns)
        self.readings += 1
        return float(self.readings), rules_of_article(self.readings)

    def places(self) -> Sequence[Place]:
        self._come_to_it()
        return PLACES

    def labs(self) -> Sequence[LabEntry]:
        self._come_to_it()
        scenario = parse_scenario(LAB, "test.yaml")
        return (
            LabEntry("port-redirect", scenario),
            LabEntry("broken", None, "cannot use lab broken: Object missing required field `name`"),
        )

    def findings(self, netns: str | None) -> Sequence[Finding]:
        self._come_to_it()
        self.asked.append(netns)
        return FINDINGS

    def close(self) -> None:
        self.closed += 1


def one_packet(snapshot: Snapshot, number: int) -> ListFeed:
    """Return a feed that publishes one packet of a snapshot."""
    return ListFeed([replace(snapshot, paths=(snapshot.paths[number],))])


def history_file(home: Path) -> Path:
    """Return where the history is below a state directory."""
    return home / "ipttrace" / "history.jsonl"
