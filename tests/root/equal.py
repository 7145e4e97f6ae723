"""A packet like a probe, made by plain sockets and traced by hand: what it met, where it came."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ipttrace.netfilter import Backend, Hook
from ipttrace.path import DropHop, Outcome, PacketPath, Role
from tests.root.expected import Told, final, told
from tests.root.kernel import Endpoint, run
from tests.root.oracle import OWN, Headers, Heard
from tests.root.random_rules import SNAT_PORTS
from tests.root.senders import SENTINELS, Arrivals, Sender, on_one_cpu, send_sentinel
from tests.root.trace_socket import TraceSocket
from tests.root.trial import Trial, check_same

TAKEN = frozenset({Outcome.DELIVERED, Outcome.REFUSED})


def came_through(path: PacketPath) -> bool:
    """Tell whether a packet came to the end of INPUT; a socket may have thrown it away then."""
    drops = [hop for hop in path.hops if isinstance(hop, DropHop)]
    behind = bool(drops) and drops[-1].reason != "NETFILTER_DROP"
    return path.outcome in TAKEN or (behind and path.chain_hops[-1].hook is Hook.INPUT)


LEFT = frozenset({Outcome.FORWARDED, Outcome.SENT})

OPENS = {"tcp": "--syn", "icmp": "--icmp-type 8", "icmp6": "--icmpv6-type 128"}
"""What tells the probe's kind from its answers."""


class EqualPacket:
    """Sent after a trial's probe, through the same rules."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._routed, self._spec = trial.routed, trial.spec
        self._probe = next(p for p in trial.result.paths if p.role is Role.PROBE)
        self._requests = [path for path in trial.result.paths if self._is_like_probe(path)]
        local = self._spec.in_interface is None and self._spec.from_netns is None
        self._sender = self._routed.router if local else self._routed.client
        self._port: int | None = None

    def _is_like_probe(self, path: PacketPath) -> bool:
        """Tell whether a path is the probe's or a copy's."""
        return _kind(path) == _kind(self._probe) and path.role is not Role.REPLY

    def send(self) -> None:
        """Send it; TRACE rules of our own catch it, and a socket of our own hears of it."""
        run("conntrack", "-F", netns=self._routed.netns)
        ends = (self._routed.client, self._routed.backend)
        with Sender(self._spec, self._sender) as sender, Arrivals(self._spec, *ends) as arrivals:
            self._port = sender.port
            self._trace()
            with TraceSocket(self._routed.netns, self._trial.known) as reports, on_one_cpu():
                sender.send()
                send_sentinel(self._routed, self._spec.family, SENTINELS[1])
                self._heard = reports.until(SENTINELS[1])
            self._arrived = arrivals.look()

    def _trace(self) -> None:
        chain = "PREROUTING" if self._sender is self._routed.client else "OUTPUT"
        words = ["-p", self._spec.protocol.replace("icmp6", "ipv6-icmp")]
        words += OPENS.get(self._spec.protocol, "").split()
        words += [] if self._port is None else ["--sport", str(self._port)]
        for backend in self._trial.rules:
            self._trial.iptables(backend, "-t", "raw", "-I", chain, *words, "-j", "TRACE")
            if backend is Backend.LEGACY:
                self._trial.known.add_trace_rule(chain)

    def check(self) -> None:
        """Compare every hop of the probe and its copies, their states, and where they came."""
        ours = told(self._requests)
        ended = [one for one in self._heard if one.spot and one.spot.table == OWN]
        theirs = [one for one in self._heard if one not in ended]
        check_same([str(one.spot) for one in ours], [str(other.spot) for other in theirs])
        for one, other in zip(ours, theirs, strict=True):
            self._check_state(one, other)
        assert len(ended) == sum(map(came_through, self._requests))
        self._check_arrivals()

    def _check_state(self, ours: Told, theirs: Heard) -> None:
        """Compare marks, addresses, and what nft reports: the verdict.

        A legacy rule reports the mark before it acted, an nft rule after.
        """
        nft = ours.hop.chain.backend is Backend.NFT
        assert (ours.after if nft else ours.before).mark == theirs.mark, f"{ours}\n{theirs}"
        assert theirs.verdict in (None, ours.verdict), f"{ours}\n{theirs}"
        if theirs.headers is not None:
            headers = self._renumbered(ours.before.headers)
            assert headers == self._renumbered(theirs.headers), f"{ours}\n{theirs}"

    def _check_arrivals(self) -> None:
        """Compare where ipttrace says that packets left with where they were seen."""
        told_of = Counter(
            (end.netns, self._renumbered(final(path)))
            for path in self._requests
            if path.outcome in LEFT
            for end in (self._routed.client, self._routed.backend)
            if path.out_interface == self._interface_to(end)
        )
        seen = Counter({(at, self._renumbered(h)): n for (at, h), n in self._arrived.items()})
        assert seen == told_of, f"arrived: {seen}, told: {told_of}"

    def _interface_to(self, end: Endpoint) -> str:
        near = end is self._routed.client
        return self._routed.router.interface if near else self._routed.outside.interface

    def _renumbered(self, headers: Headers) -> Headers:
        """Return headers with one and the same source port for the probe and its equal."""
        return replace(headers, sport=self._same(headers.sport), dport=self._same(headers.dport))

    def _same(self, port: int | None) -> int | None:
        if port in (self._port, self._probe.packet.sport):
            return 1
        return 2 if port in SNAT_PORTS else port


def _kind(path: PacketPath) -> tuple[object, ...]:
    packet = path.packet
    return packet.protocol, packet.tcp_flags, packet.tcp_seq, packet.icmp and packet.icmp.type
