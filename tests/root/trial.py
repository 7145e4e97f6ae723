"""One probe through the rules of a router, while nft's own monitor hears the same packets."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import jsonschema

from ipttrace.cli.compose import trace_probe
from ipttrace.netfilter import Backend, PacketFamily
from ipttrace.path import ChainHop, Outcome, PacketPath
from ipttrace.probe import ProbeSpec, validate
from ipttrace.render.records import path_record, summary_record
from ipttrace.render.schema import SHIPPED
from ipttrace.result import TraceResult
from tests.root.expected import check_walk, final, hits, initial, place, told
from tests.root.footprint import Footprint, check_untouched, look
from tests.root.kernel import Listeners, run
from tests.root.oracle import ARRIVED, OWN, Heard, Monitor, Rules, Spot, monitored
from tests.root.random_rules import OPEN
from tests.root.routed import Routed
from tests.root.senders import SENTINELS, send_sentinel
from tests.transcripts import transcript

SCHEMA = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text(encoding="utf-8")))

UNTRACKS = ("--notrack", "TEE")
"""A copy has no conntrack entry either."""


@dataclass
class Trial:
    """What is sent through which rules of the router, and what was found out."""

    routed: Routed
    spec: ProbeSpec
    rules: Mapping[Backend, str]
    """Input for iptables-restore, in the order of loading."""
    result: TraceResult = field(init=False)
    known: Rules = field(init=False)
    lines: list[str] = field(default_factory=list)
    """Of the monitor."""
    notes: list[str] = field(default_factory=list)
    """What the user was told meanwhile."""
    warnings: tuple[str, ...] = ()
    """Those that are expected."""

    def listen(self, listen: Listeners) -> None:
        """Open the services of the router and the backend."""
        wild = "0.0.0.0" if self.spec.family is PacketFamily.IPV4 else "::"
        if self.spec.dport is not None:
            for netns in (self.routed.netns, self.routed.backend.netns):
                listen(netns, wild, OPEN, self.spec.protocol)

    def load(self) -> None:
        """Load the rules, one backend after the other."""
        for backend, text in self.rules.items():
            self.iptables(backend, "restore", stdin=text)

    def iptables(self, backend: Backend, *words: str, stdin: str | None = None) -> None:
        """Run iptables of a backend; with the first word `restore`, iptables-restore."""
        name = f"{'iptables' if self.spec.family is PacketFamily.IPV4 else 'ip6tables'}-{backend}"
        if words[0] == "restore":
            name, words = f"{name}-restore", words[1:]
        run(name, "-w", "20", *words, netns=self.routed.netns, stdin=stdin)

    def probe(self) -> None:
        """Send and trace the probe."""
        self.known = Rules(self.routed.netns, self.spec.family.table_family)
        self._before = self._look()
        with Monitor(self.routed.netns) as monitor:
            self.result = trace_probe(
                validate(self.spec), answer=self._count, note=self.notes.append
            )
            self._after = self._look()
            self._trace_sentinels()
            send_sentinel(self.routed, self.spec.family, SENTINELS[0])
            self.lines = monitor.before(f"dport {SENTINELS[0]} ")

    def _look(self) -> Footprint:
        return look(self.routed.netns, self.spec.family, self.rules)

    def _count(self, _: TraceResult) -> None:
        """Look before what the probe left is taken back: that moves counters."""
        self._counted = self._look()

    def _trace_sentinels(self) -> None:
        """Add a table that traces the datagrams that come after all else, and drops them."""
        base = "type filter hook {} priority {}; policy accept;"
        ports = ", ".join(str(port) for port in SENTINELS)
        lines = (
            f"table {self.spec.family.table_family} {OWN} {{",
            f"chain first {{ {base.format('prerouting', -450)}",
            f"udp dport {{ {ports} }} meta nftrace set 1 drop",
            "}",
            f"chain {ARRIVED[1]} {{ {base.format('input', 2147483640)}",
            "}",
            "}\n",
        )
        run("nft", "-f", "-", netns=self.routed.netns, stdin="\n".join(lines))

    def forget_sentinels(self) -> None:
        """Delete that table, so that the next trial does not take it for the user's."""
        table = f"{self.spec.family.table_family} {OWN}"
        run("nft", "delete", "table", *table.split(), netns=self.routed.netns)

    def check_probe(self) -> None:
        """Compare with what nft says, with the counters, and with how it was before."""
        self._check_records()
        self._check_reports()
        self._check_counters()
        for path in self.result.paths:
            check_walk(path)
            for hop in path.chain_hops:
                self._check_hop(hop)
        check_untouched(self._before, self._after)

    def _check_records(self) -> None:
        records = [path_record(path) for path in self.result.paths]
        for record in (*records, summary_record(self.result)):
            SCHEMA.validate(json.loads(record))
        totals = self.result.totals
        assert (totals.lost_events, totals.undecoded) == (0, 0)
        assert self.result.warnings == self.warnings
        assert self.result.clean
        assert self.notes == []

    def _check_reports(self) -> None:
        ours = [one for one in told(self.result.paths) if one.hop.chain.backend is Backend.NFT]
        theirs = monitored(self.lines, self.known)
        check_same(
            [
                f"{as_told(one.spot, other)} {one.verdict}"
                for one, other in zip_longest(ours, theirs)
                if one is not None
            ],
            [f"{other.spot} {other.verdict}" for other in theirs],
        )
        owner: dict[object, PacketPath] = {}
        for one, other in zip(ours, theirs, strict=True):
            assert other.mark in (None, one.after.mark), f"{one} {other}"
            former = owner.setdefault(_identity(other), one.path)
            # The kernel gives an id to another packet once the first one is no more.
            ended = former.chain_hops[-1].time < one.hop.time
            assert former is one.path or ended, f"{one} {other}"
            owner[_identity(other)] = one.path

    def _check_counters(self) -> None:
        met = hits(self.result.paths)
        hidden = self._hides_answers()
        for at, rise in self._before.rises(self._counted).items():
            more = hidden or at[1] == "raw"
            assert rise == met[at] or (more and rise > met[at]), f"{at}: {rise}, {met[at]} hops"

    def _hides_answers(self) -> bool:
        """Tell whether there may be answers that nothing ties to the probe.

        They are untracked and have other addresses, or an answer itself was answered by REJECT.
        """
        paths = self.result.paths
        if any(path.outcome is Outcome.REJECTED for path in paths if path.request):
            return True
        translated = any(final(path) != initial(path).headers for path in paths)
        return translated and any(word in text for text in self.rules.values() for word in UNTRACKS)

    def _check_hop(self, hop: ChainHop) -> None:
        if hop.number is not None:
            assert hop.rule == self._before.texts[place(hop)]
        if hop.counter is not None:
            assert hop.counter.packets == self._before.rises(self._counted)[place(hop)], hop

    def description(self) -> str:
        """Return all that one needs to send the probe by hand, and what was traced."""
        parts = [str(self.spec)]
        parts += [f"--- {backend}\n{text}" for backend, text in self.rules.items()]
        if hasattr(self, "result"):
            parts += [transcript(self.result.paths), *self.result.warnings]
        return "\n".join([*parts, *self.notes, *self.lines])


def as_told(spot: Spot, other: Heard | None) -> Spot:
    """Return a spot without its number where the monitor did not tell that."""
    unnumbered = other is not None and other.spot == replace(spot, number=None)
    return replace(spot, number=None) if unnumbered else spot


def _identity(heard: Heard) -> object:
    shown = heard.headers
    return heard.trace_id, shown and shown.src, shown and shown.sport


def check_same(ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Fail with a diff unless both tell the same."""
    lines = difflib.unified_diff(theirs, ours, "kernel", "ipttrace", lineterm="")
    assert list(ours) == list(theirs), "\n".join(["ipttrace tells another way:", *lines])
