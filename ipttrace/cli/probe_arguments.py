"""The words of a probe on the command line, for every subcommand that sends one."""

from __future__ import annotations

import argparse

from ipttrace.probe import PROTOCOLS, ProbeSpec, parse_endpoint, parse_flags, validate
from ipttrace.request import Trigger

TRIGGER = (
    "raw: a TRACE rule in the raw table (default); owner: an nft table of our own that the kernel"
    " removes whatever happens to us"
)
NAMESPACE = "a name of 'ip netns', a path, a process id, or the start of a container's id"


def add_arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add PROTO, DST and the options that describe and place a probe."""
    nargs = None if required else "?"
    parser.add_argument(
        "protocol", metavar="PROTO", choices=PROTOCOLS, nargs=nargs, help="tcp, udp, icmp or icmp6"
    )
    parser.add_argument("destination", metavar="DST[:PORT]", nargs=nargs, help="in IPv6 [DST]:PORT")
    _add_packet(parser.add_argument_group("the packet"))
    _add_place(parser.add_argument_group("where"))
    _add_manner(parser.add_argument_group("how"))


def _add_packet(packet: argparse._ArgumentGroup) -> None:
    packet.add_argument("--src", metavar="A[:P]", help="source address, and port")
    packet.add_argument("--tcp-flags", metavar="SYN,..", default="SYN", help="with --in only")
    packet.add_argument("--size", type=int, metavar="BYTES", help="of the whole IP packet")
    packet.add_argument("--ttl", type=int, metavar="N", help="TTL or hop limit")
    packet.add_argument("--count", type=int, default=1, metavar="N", help="how many; default 1")


def _add_place(where: argparse._ArgumentGroup) -> None:
    way = where.add_mutually_exclusive_group()
    way.add_argument(
        "--in", dest="in_interface", metavar="IFACE", help="inject it as if received on IFACE"
    )
    way.add_argument(
        "--from", dest="from_netns", metavar="NETNS", help="send it by a real client in NETNS"
    )
    where.add_argument(
        "--netns",
        action="append",
        default=[],
        help=f"trace in NETNS: {NAMESPACE}; default: here. "
        "Give the next ones on the packet's way by further --netns",
    )
    where.add_argument(
        "--let-out",
        action="store_true",
        help="let an injected packet and its answers leave the namespace",
    )


def _add_manner(how: argparse._ArgumentGroup) -> None:
    how.add_argument(
        "--trigger",
        choices=[str(trigger) for trigger in Trigger],
        help=TRIGGER,
    )
    how.add_argument(
        "--evidence",
        choices=("all", "none"),
        default="all",
        help="none: only what the chains report, nothing of the kernel's events and tables",
    )
    how.add_argument(
        "--wait", type=float, default=2.0, metavar="S", help="seconds at most; default 2"
    )


def spec_of(args: argparse.Namespace) -> ProbeSpec:
    """Return the probe that the words describe; raises UsageError."""
    dst, dport = parse_endpoint(args.destination)
    src, sport = parse_endpoint(args.src) if args.src else (None, None)
    return validate(
        ProbeSpec(
            protocol=args.protocol,
            dst=dst,
            dport=dport,
            src=src,
            sport=sport,
            in_interface=args.in_interface,
            from_netns=args.from_netns,
            netns=tuple(args.netns),
            tcp_flags=parse_flags(args.tcp_flags),
            size=args.size,
            ttl=args.ttl,
            count=args.count,
            trigger=Trigger(args.trigger) if args.trigger else None,
            let_out=args.let_out,
            evidence=args.evidence,
            wait=args.wait,
            expect=getattr(args, "expect", None),
        )
    )
