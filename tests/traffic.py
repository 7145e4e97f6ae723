"""The rules and packets of the recordings in tests/data, for scripts/record-trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

ADDRESSES = {4: ("198.51.100.2", "198.51.100.1"), 6: ("2001:db8::2", "2001:db8::1")}

TRACE_ALL = """*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -j TRACE
-A OUTPUT -j TRACE
COMMIT
"""

WALK = (
    TRACE_ALL
    + """*mangle
-A PREROUTING -p tcp --dport 8445 -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING -m mark --mark 0x1 -m comment --comment "in doubt: -j DROP" -j CONNMARK --save-mark
COMMIT
*nat
-A PREROUTING -p tcp --dport 8445 -j REDIRECT --to-ports 8443
COMMIT
*filter
:U - [0:0]
:V - [0:0]
:W - [0:0]
-A INPUT -p tcp --dport 8443 -j U
-A INPUT -p udp -g V
-A INPUT -p ICMP -j ACCEPT
-A INPUT -j DROP
-A U -m mark --mark 0x2 -j ACCEPT
-A U -j W
-A U -j RETURN
-A V -p udp --dport 53 -j ACCEPT
-A W -p tcp -j RETURN
COMMIT
"""
)

FOREIGN = (
    TRACE_ALL
    + """*filter
-A INPUT -p udp --dport 1 -j NFLOG --nflog-prefix "TRACE: filter:INPUT:rule:1 "
-A INPUT -p udp --dport 2 -j NFLOG --nflog-prefix "TRACE: nowhere:X:policy:9 "
-A INPUT -p udp --dport 3 -j NFLOG --nflog-prefix "TRACE: filter:INPUT:rule:1"
-A INPUT -p udp --dport 4 -j NFLOG
COMMIT
"""
)

NAMES = (
    TRACE_ALL
    + """*filter
:a:rule:1 - [0:0]
:policy:2 - [0:0]
-A INPUT -m comment --comment -j -j a:rule:1
-A INPUT -p udp -g policy:2
-A a:rule:1 -p udp -m comment --comment "say \\"-j DROP\\" \\\\"
COMMIT
"""
)

TWO_LINES = ("iptables-legacy", "-I", "INPUT", "2", "-m", "comment", "--comment",
             "two\n[0:0] -A INPUT lines")  # fmt: skip
"""iptables-restore reads lines, so that only iptables itself can make such a rule."""

NATIVE = """table inet t {
    map services { type inet_service : verdict; elements = { 1 : drop, 2 : jump second } }
    chain input {
        type filter hook input priority filter + 5; policy drop;
        meta mark set 0x7
        udp dport vmap @services
        jump second
        udp dport 3 counter continue
        udp dport 4 goto third
        udp dport 5 log prefix "five" group 0
        udp dport 6 reject
    }
    chain second { udp dport 2 return
    }
    chain third { counter
    }
    chain early {
        type filter hook prerouting priority raw - 1
        meta nftrace set 1
    }
}
table netdev nd {
    chain in {
        type filter hook ingress device "s0" priority 0
        meta nftrace set 1
        udp dport 7 drop
    }
}
"""

BRIDGED = """table bridge b {
    chain early {
        type filter hook prerouting priority -300
        meta nftrace set 1
    }
    chain late {
        type filter hook prerouting priority 300
        udp dport 53 jump inner
    }
    chain inner { udp dport 53 return
    }
    chain across {
        type filter hook forward priority -200
        tcp dport 8445 meta mark set 0x7
    }
    chain after {
        type filter hook forward priority 200
        udp dport 5353 drop
    }
    chain gone {
        type filter hook postrouting priority 0
    }
}
"""
"""br_netfilter calls IP's chains between `early` and `late`, `across` and `after`, after `gone`."""


@dataclass(frozen=True)
class Scenario:
    """What to load with which tool, and what to send."""

    about: str
    version: int
    rules: dict[str, str]
    packets: Callable[[int], Sequence[Any]]
    extra: tuple[str, ...] = ()
    """A command after the rules were loaded."""
    finish: tuple[str, ...] = ()
    """A command for the end, for the events it brings."""
    bridged: bool = False
    """The server is a switch with br_netfilter: frames come in on s0 and leave by x0."""


def _ip(version: int, **more: Any) -> Any:
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    client, server = ADDRESSES[version]
    if version == 4:
        return IP(src=client, dst=server, id=4242, **more)
    return IPv6(src=client, dst=server, **more)


def _tcp(port: int, flags: str = "S") -> Any:
    from scapy.layers.inet import TCP

    return TCP(sport=40000, dport=port, seq=1000, ack=0, flags=flags)


def _udp(port: int, size: int = 4) -> Any:
    from scapy.layers.inet import UDP

    return UDP(sport=40001, dport=port) / bytes(range(size))


def _echo(version: int) -> Any:
    from scapy.layers.inet import ICMP
    from scapy.layers.inet6 import ICMPv6EchoRequest

    header = ICMP(id=77, seq=1) if version == 4 else ICMPv6EchoRequest(id=77, seq=1)
    return header / b"hello"


def walk_packets(version: int) -> Sequence[Any]:
    ip = _ip(version)
    return [ip / _tcp(8445), ip / _udp(5353), ip / _udp(53), ip / _echo(version)]


def flow_packets(version: int) -> Sequence[Any]:
    ip = _ip(version)
    return [ip / _tcp(8445), ip / _udp(53), ip / _echo(version)]


def udp_packets(version: int) -> Sequence[Any]:
    return [_ip(version) / _udp(port) for port in range(1, 9)]


def one_packet(version: int) -> Sequence[Any]:
    return [_ip(version) / _udp(9)]


def error_packets(version: int) -> Sequence[Any]:
    """Return a packet to a closed port, and errors that quote packets of the server."""
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6

    ip = _ip(version)
    client, server = ADDRESSES[version]
    if version == 4:
        quoted = IP(src=server, dst=client, id=99, ttl=7) / _tcp(80)
        return [ip / _udp(9), ip / ICMP(type=3, code=1) / quoted, ip / ICMP(type=11) / quoted]
    quoted = IPv6(src=server, dst=client, hlim=7) / _tcp(80)
    errors = [ICMPv6DestUnreach(code=3), ICMPv6PacketTooBig(mtu=1280)]
    return [ip / _udp(9), *(ip / error / quoted for error in errors)]


def header_packets(version: int) -> Sequence[Any]:
    """Return packets with unusual headers: fragments, options, extension headers, cut ones."""
    from scapy.layers.inet import TCP, IPOption_NOP, fragment
    from scapy.layers.sctp import SCTP, SCTPChunkInit

    ip = _ip(version)
    sctp = SCTP(sport=1, dport=2, tag=3) / SCTPChunkInit()
    first = [ip / _tcp(9, "SAFRPUEC"), ip / sctp]
    if version == 4:
        pieces = fragment(ip / _udp(9, 96), fragsize=48)
        options = _ip(4, options=[IPOption_NOP()] * 8)
        cut = _ip(4, proto=6) / bytes(TCP(sport=5, dport=6))[:10]
        return [*first, _ip(4, proto=47) / b"gre?", options / _tcp(9), cut, *pieces]
    return [*first, *extension_packets()]


def extension_packets() -> Sequence[Any]:
    from scapy.layers.inet6 import (
        IPv6ExtHdrDestOpt,
        IPv6ExtHdrFragment,
        IPv6ExtHdrHopByHop,
        IPv6ExtHdrRouting,
    )

    ip = _ip(6)
    whole = bytes(_udp(9, 96))
    return [
        ip / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / _tcp(9),
        ip / IPv6ExtHdrRouting(segleft=0) / _udp(9),
        _ip(6, nh=59) / b"none",
        ip / IPv6ExtHdrFragment(id=99, m=1, nh=17) / whole[:48],
        ip / IPv6ExtHdrFragment(id=99, offset=6, nh=17) / whole[48:],
    ]


def _scenarios() -> Iterator[tuple[str, Scenario]]:
    flush = ("conntrack", "-F")
    for version in (4, 6):
        walk = WALK.replace("ICMP", "icmp" if version == 4 else "ipv6-icmp")
        for backend in ("legacy", "nft"):
            tool = f"ip{'6' * (version == 6)}tables-{backend}-restore"
            name = f"{backend}{version}"
            yield (
                f"{name}-walk",
                Scenario(
                    "marks, REDIRECT, jump, goto, return, unconditional last rules",
                    version,
                    {tool: walk},
                    walk_packets,
                    finish=flush,
                ),
            )
            yield (
                f"{name}-errors",
                Scenario("ICMP errors, sent and met", version, {tool: TRACE_ALL}, error_packets),
            )
            yield (
                f"{name}-headers",
                Scenario(
                    "fragments, options, cut and rare headers",
                    version,
                    {tool: TRACE_ALL},
                    header_packets,
                ),
            )
        yield (
            f"flows{version}",
            Scenario(
                "conntrack entries: new, update, destroy; with REDIRECT",
                version,
                {f"ip{'6' * (version == 6)}tables-legacy-restore": walk.split("*filter")[0]},
                flow_packets,
                finish=flush,
            ),
        )
    yield (
        "foreign4",
        Scenario(
            "a user's own NFLOG on group 0, with prefixes that imitate a trace",
            4,
            {"iptables-legacy-restore": FOREIGN},
            udp_packets,
        ),
    )
    yield (
        "names4",
        Scenario(
            "chains and comments whose text looks like syntax",
            4,
            {"iptables-legacy-restore": NAMES},
            one_packet,
            extra=TWO_LINES,
        ),
    )
    for version in (4, 6):
        yield (
            f"native{version}",
            Scenario("native nft: inet and netdev", version, {"nft": NATIVE}, udp_packets),
        )
        tool = f"ip{'6' * (version == 6)}tables-legacy-restore"
        yield (
            f"bridged{version}",
            Scenario(
                "frames on a bridge: nft's chains of the bridge, with legacy ones inside them",
                version,
                {
                    tool: f"{TRACE_ALL}*filter\n-A FORWARD -p tcp -j ACCEPT\nCOMMIT\n",
                    "nft": BRIDGED,
                },
                walk_packets,
                bridged=True,
            ),
        )
    yield (
        "both4",
        Scenario(
            "rules in both backends",
            4,
            {
                "iptables-legacy-restore": WALK.replace("ICMP", "icmp"),
                "iptables-nft-restore": NAMES,
            },
            walk_packets,
        ),
    )


SCENARIOS = dict(_scenarios())
