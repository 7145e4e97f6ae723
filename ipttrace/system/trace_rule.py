"""What a TRACE rule of ours matches, in words that both rule engines understand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ipttrace.errors import UsageError
from ipttrace.netfilter import Hook, PacketFamily
from ipttrace.packet import Flow
from ipttrace.ports import TraceRequest
from ipttrace.ruleset import TAG

LAST_DATE = 2145916800
"""2038-01-01: xt_time's limits are 32 bits wide (struct xt_time_info)."""

WITH_PORTS = frozenset({"tcp", "udp", "sctp", "dccp", "udplite"})

PROTOCOL_NAMES = {"icmp6": "ipv6-icmp"}
"""Our name of a protocol to iptables' name."""


@dataclass(frozen=True, slots=True)
class TraceRule:
    """One rule; None leaves a criterion out."""

    family: PacketFamily
    hook: Hook
    tag: str
    protocol: str
    source: str | None = None
    destination: str | None = None
    sport: int | None = None
    dport: int | None = None
    icmp_type: int | None = None
    in_interface: str | None = None
    stop: int | None = None
    """Seconds since the epoch from which on it matches nothing."""

    def matches(self) -> list[tuple[str, dict[str, str]]]:
        """Return each match extension with its options, as iptables names them."""
        found: list[tuple[str, dict[str, str]]] = []
        ports = {"sport": self.sport, "dport": self.dport}
        options = {name: str(port) for name, port in ports.items() if port is not None}
        if options:
            found.append((self.protocol, options))
        if self.icmp_type is not None:
            found.append(self._icmp(self.icmp_type))
        found.append(("comment", {"comment": self.tag}))
        if self.stop is not None:
            found.append(("time", {"datestop": _date(self.stop)}))
        return found

    def _icmp(self, number: int) -> tuple[str, dict[str, str]]:
        if self.family is PacketFamily.IPV4:
            return "icmp", {"icmp-type": str(number)}
        return "icmp6", {"icmpv6-type": str(number)}

    def arguments(self) -> list[str]:
        """Return the rule as arguments of `iptables -I CHAIN`."""
        words = ["-p", self.protocol]
        for option, value in (
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
        """Return the rule as `nft` writes it, after the chain's name."""
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
            "meta time <": self.stop,
        }
        words = [f"{name} {value}" for name, value in criteria.items() if value is not None]
        return " ".join([*words, f'counter meta nftrace set 1 comment "{self.tag}"'])


def trace_rule(request: TraceRequest, now: float) -> TraceRule:
    """Return the rule that catches the packets of `request`."""
    flow = request.flow
    return TraceRule(
        family=flow.family,
        hook=request.hook,
        tag=TAG + request.session,
        protocol=PROTOCOL_NAMES.get(flow.protocol, flow.protocol),
        source=None if request.any_source else flow.src,
        destination=flow.dst,
        sport=_port(flow, flow.sport),
        dport=_port(flow, flow.dport),
        icmp_type=_echo_request(flow),
        in_interface=request.in_interface if request.hook is Hook.PREROUTING else None,
        stop=min(math.ceil(now + request.lifetime), LAST_DATE),
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


def _port(flow: Flow, port: int | None) -> int | None:
    return port if flow.protocol in WITH_PORTS else None


def _echo_request(flow: Flow) -> int | None:
    """Return ICMP_ECHO (uapi/linux/icmp.h) or ICMPV6_ECHO_REQUEST (uapi/linux/icmpv6.h)."""
    return {"icmp": 8, "icmp6": 128}.get(flow.protocol)


def _echo_reply(family: PacketFamily) -> int:
    return 0 if family is PacketFamily.IPV4 else 129


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
