"""What a TRACE rule of ours matches, in words that both rule engines understand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.request import Instruction, TraceRequest, burst
from ipttrace.ruleset import TAG

LAST_DATE = 2145916800
"""2038-01-01: xt_time's limits are 32 bits wide (struct xt_time_info)."""

WITH_PORTS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})

FASTEST_LIMIT = 10_000
"""Packets a second: xt_limit counts in ten-thousandths (XT_LIMIT_SCALE, uapi xt_limit.h)."""

ECHO_ID = {PacketFamily.IPV4: "0>>22&0x3C@4>>16", PacketFamily.IPV6: "44>>16"}
"""Where xt_u32 finds an echo's id: behind the IPv4 header of any length, the fixed IPv6 header."""

PROTOCOL_NAMES = {"icmp6": "ipv6-icmp"}
"""Our name of a protocol to iptables' name."""


@dataclass(frozen=True, slots=True)
class TraceRule:
    """One rule; None leaves a criterion out."""

    family: PacketFamily
    hook: Hook
    tag: str
    protocol: str | None = None
    source: str | None = None
    destination: str | None = None
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    echo_id: int | None = None
    program: tuple[Instruction, ...] = ()
    """A packet filter."""
    in_interface: str | None = None
    skips_loopback: bool = False
    """Leave out what comes in over `lo`: a rule in OUTPUT has seen it."""
    stop: int | None = None
    """Seconds since the epoch from which on it matches nothing."""
    limit: int | None = None
    """Packets a second."""

    @property
    def interface(self) -> str | None:
        """The interface that packets come in by, with iptables' `!` before one they do not."""
        return "!lo" if self.skips_loopback else self.in_interface

    def matches(self) -> list[tuple[str, dict[str, str]]]:
        """Return each match extension with its options, as iptables names them.

        The limit comes last: it counts what all the others let pass.
        """
        found: list[tuple[str, dict[str, str]]] = []
        ports = {"sport": self.sport, "dport": self.dport}
        options = {name: str(port) for name, port in ports.items() if port is not None}
        if options and self.protocol is not None:
            found.append((self.protocol, options))
        if self.icmp_type is not None:
            found.append(self._icmp(self.icmp_type))
        if self.echo_id is not None:
            found.append(("u32", {"u32": f"{ECHO_ID[self.family]}={self.echo_id}"}))
        if self.program:
            found.append(("bpf", {"bytecode": _bytecode(self.program)}))
        found.append(("comment", {"comment": self.tag}))
        if self.stop is not None:
            found.append(("time", {"datestop": _date(self.stop)}))
        if self.limit is not None:
            at_once = str(burst(self.limit))
            found.append(("limit", {"limit": f"{self.limit}/sec", "limit-burst": at_once}))
        return found

    def _icmp(self, number: int) -> tuple[str, dict[str, str]]:
        if self.family is PacketFamily.IPV4:
            return "icmp", {"icmp-type": str(number)}
        return "icmp6", {"icmpv6-type": str(number)}

    def arguments(self) -> list[str]:
        """Return the rule as arguments of `iptables -I CHAIN`."""
        words = ["!", "-i", "lo"] if self.skips_loopback else []
        for option, value in (
            ("-p", self.protocol),
            ("-s", self.source),
            ("-d", self.destination),
            ("-i", self.in_interface),
        ):
            words += [option, value] if value is not None else []
        for name, options in self.matches():
            words += ["-m", name]
            for option, value in options.items():
                words += [f"--{option}", value]
        return [*words, "-j", "TRACE"]

    def native(self) -> str:
        """Return the rule as `nft` writes it, after the chain's name; nft knows no xt_bpf."""
        if self.program:
            raise NotSupportedError(
                f"cannot match a packet filter in raw/{self.hook} (nft): there is no iptables-nft"
            )
        if self.in_interface is not None and '"' in self.in_interface:
            raise UsageError(f"cannot name interface {self.in_interface!r} to nft: it has a quote")
        address = "ip" if self.family is PacketFamily.IPV4 else "ip6"
        icmp = "icmp" if self.family is PacketFamily.IPV4 else "icmpv6"
        criteria = {
            "iifname": self.in_interface and f'"{self.in_interface}"',
            "meta l4proto": self.protocol,
            f"{address} saddr": self.source,
            f"{address} daddr": self.destination,
            f"{self.protocol} sport": self.sport,
            f"{self.protocol} dport": self.dport,
            f"{icmp} type": self.icmp_type,
            f"{icmp} id": self.echo_id,
            "meta time <": self.stop,
        }
        words = [f"{name} {value}" for name, value in criteria.items() if value is not None]
        return " ".join([*words, f'counter meta nftrace set 1 comment "{self.tag}"'])


def trace_rule(request: TraceRequest, now: float) -> TraceRule:
    """Return the rule that catches the packets of a flow."""
    flow, anywhere = request.flow, request.any_destination
    assert flow is not None
    return TraceRule(
        family=flow.family,
        hook=request.hook,
        tag=TAG + request.session,
        protocol=PROTOCOL_NAMES.get(flow.protocol, flow.protocol),
        source=None if request.any_source else flow.src,
        destination=None if anywhere else flow.dst,
        sport=_port(flow, flow.sport),
        dport=None if anywhere else _port(flow, flow.dport),
        icmp_type=_echo_request(flow),
        echo_id=flow.icmp_id if anywhere else None,
        in_interface=request.in_interface if request.hook is Hook.PREROUTING else None,
        stop=_stop(request, now),
    )


def filter_rules(request: TraceRequest, family: PacketFamily, now: float) -> tuple[TraceRule, ...]:
    """Return the rules that catch the packets of a filter, one a hook, each with its own limit."""
    assert request.filter is not None
    return tuple(
        TraceRule(
            family,
            hook,
            TAG + request.session,
            program=request.filter.program,
            skips_loopback=hook is Hook.PREROUTING and Hook.OUTPUT in request.hooks,
            stop=_stop(request, now),
            limit=request.limit,
        )
        for hook in request.hooks
    )


def reply_rules(rule: TraceRule) -> tuple[TraceRule, ...]:
    """Return rules for the answers, for kernels whose only engine is ip_tables.

    They come in at PREROUTING, or start at OUTPUT if this host is who answers.
    """
    swapped = replace(
        rule,
        source=rule.destination,
        destination=rule.source,
        sport=rule.dport,
        dport=rule.sport,
        icmp_type=None if rule.icmp_type is None else _echo_reply(rule.family),
        in_interface=None,
    )
    return tuple(replace(swapped, hook=hook) for hook in (Hook.PREROUTING, Hook.OUTPUT))


def _stop(request: TraceRequest, now: float) -> int:
    return min(math.ceil(now + request.lifetime), LAST_DATE)


def _port(flow: Flow, port: int | None) -> int | None:
    return port if flow.protocol in WITH_PORTS else None


def _echo_request(flow: Flow) -> int | None:
    """Return ICMP_ECHO (uapi/linux/icmp.h) or ICMPV6_ECHO_REQUEST (uapi/linux/icmpv6.h)."""
    return {"icmp": 8, "icmp6": 128}.get(flow.protocol)


def _echo_reply(family: PacketFamily) -> int:
    return 0 if family is PacketFamily.IPV4 else 129


def _bytecode(program: tuple[Instruction, ...]) -> str:
    """Return a program as `iptables -m bpf --bytecode` reads it."""
    return ",".join([str(len(program)), *(" ".join(map(str, each)) for each in program)])


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
