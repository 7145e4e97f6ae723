"""What the sender of a packet gets to see, as its fate foretells it."""

from __future__ import annotations

import re

from ipttrace.diagnose.catalogue import Cause
from ipttrace.netfilter import FATAL_VERDICTS, Hook, PacketFamily, Verdict
from ipttrace.path import ChainHop, Outcome, PacketPath

WORDS = {
    "CONNECTED": "is connected",
    "REPLIED": "got an answer",
    "SENT": "sent it, and waits for no answer",
    "TIMEOUT": "got no answer (timeout)",
    "ECONNREFUSED": "got 'Connection refused' (ECONNREFUSED)",
    "ECONNRESET": "got 'Connection reset by peer' (ECONNRESET)",
    "EHOSTUNREACH": "got 'No route to host' (EHOSTUNREACH)",
    "ENETUNREACH": "got 'Network is unreachable' (ENETUNREACH)",
    "EPERM": "got 'Operation not permitted' (EPERM)",
    "EACCES": "got 'Permission denied' (EACCES)",
    "EINVAL": "got 'Invalid argument' (EINVAL)",
    "EMSGSIZE": "got 'Message too long' (EMSGSIZE)",
}
"""The results of a client's call, for people."""

REFUSED, NO_HOST, NO_NET = "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"

TOLD_BY_ICMP = frozenset(
    {
        Cause.NO_ROUTE,
        Cause.BLACKHOLE_ROUTE,
        Cause.NEIGHBOUR_FAILED,
        Cause.TTL_EXCEEDED,
        Cause.MTU_EXCEEDED,
    }
)
"""What the sender sees depends on an ICMP error, which the rate limit may hold back."""

HELD_BACK = "the kernel's rate limit held its ICMP error back"
"""How the evidence of it begins: then the sender is told nothing."""

REJECT_WITH = {
    "tcp-reset": ("a TCP reset", REFUSED),
    "icmp-net-unreachable": ("ICMP 3/0, network unreachable", NO_NET),
    "icmp-host-unreachable": ("ICMP 3/1, host unreachable", NO_HOST),
    "icmp-proto-unreachable": ("ICMP 3/2, protocol unreachable", "ENOPROTOOPT"),
    "icmp-port-unreachable": ("ICMP 3/3, port unreachable", REFUSED),
    "icmp-net-prohibited": ("ICMP 3/9, network prohibited", NO_NET),
    "icmp-host-prohibited": ("ICMP 3/10, host prohibited", NO_HOST),
    "icmp-admin-prohibited": ("ICMP 3/13, prohibited by the administrator", NO_HOST),
    "icmp6-no-route": ("ICMPv6 1/0, no route", NO_NET),
    "icmp6-adm-prohibited": ("ICMPv6 1/1, prohibited by the administrator", "EACCES"),
    "icmp6-addr-unreachable": ("ICMPv6 1/3, address unreachable", NO_HOST),
    "icmp6-port-unreachable": ("ICMPv6 1/4, port unreachable", REFUSED),
    "icmp6-policy-fail": ("ICMPv6 1/5, source address failed a policy", "EACCES"),
    "icmp6-reject-route": ("ICMPv6 1/6, reject route", "EACCES"),
}
"""`--reject-with` to the answer it makes and the errno that the client gets.

icmp_err_convert in net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c.
"""

NATIVE = {
    "tcp reset": "tcp-reset",
    "host-prohibited": "icmp-host-prohibited",
    "net-prohibited": "icmp-net-prohibited",
    "admin-prohibited": "icmp-admin-prohibited",
    "host-unreachable": "icmp-host-unreachable",
    "net-unreachable": "icmp-net-unreachable",
    "prot-unreachable": "icmp-proto-unreachable",
    "addr-unreachable": "icmp6-addr-unreachable",
    "no-route": "icmp6-no-route",
    "policy-fail": "icmp6-policy-fail",
    "reject-route": "icmp6-reject-route",
}
"""How nft writes some of them, after `reject with`."""

OF_FAMILY = {
    PacketFamily.IPV4: {"no-route": "icmp-net-unreachable"},
    PacketFamily.IPV6: {
        "admin-prohibited": "icmp6-adm-prohibited",
        "host-unreachable": "icmp6-addr-unreachable",
    },
}
"""What `icmpx` makes of a word in one family (nft_reject.c)."""


def reject_answer(hop: ChainHop, family: PacketFamily) -> tuple[str, str]:
    """Return the answer that a REJECT rule makes, in words, and the errno it gives the client."""
    text = hop.rule or ""
    default = "icmp-port-unreachable" if family is PacketFamily.IPV4 else "icmp6-port-unreachable"
    option = re.search(r"--reject-with (\S+)", text)
    if option:
        return REJECT_WITH.get(option[1], (option[1], ""))
    statement = text.partition("reject with ")[2]
    known = {**NATIVE, **OF_FAMILY[family]}
    native = next((name for word, name in known.items() if word in statement), default)
    return REJECT_WITH[native]


def client_got(word: str) -> str:
    """Return what the client's call returned, as a sentence."""
    return f"the client {WORDS.get(word, f'got {word}')}"


def client_sees(path: PacketPath) -> str | None:
    """Return what a client would see of this fate, or None where the path does not tell."""
    if path.diagnosis is not None and path.diagnosis.cause in TOLD_BY_ICMP:
        return None
    if path.outcome is Outcome.REFUSED:
        return _sees_refusal(path)
    last = path.chain_hops[-1] if path.chain_hops else None
    fatal = last is not None and last.verdict in FATAL_VERDICTS
    if last is None or not fatal:
        return "a client sees a timeout" if path.outcome is Outcome.DROPPED else None
    if last.verdict is Verdict.REJECT and not _is_held_back(path):
        error = reject_answer(last, path.packet.family)[1]
        return f"a client sees {error}" if error else None
    if last.hook in (Hook.OUTPUT, Hook.POSTROUTING) and path.packet.protocol == "udp":
        return "the sender sees EPERM"
    return "a client sees a timeout"


def _sees_refusal(path: PacketPath) -> str | None:
    """Return what a reset or an ICMP error does to the sender; nobody answers a reset."""
    packet = path.packet
    if "RST" in packet.tcp_flags or packet.icmp is not None:
        return None
    if _is_held_back(path):
        return "a client sees a timeout"
    connecting = packet.protocol != "tcp" or "SYN" in packet.tcp_flags
    return f"a client sees {REFUSED if connecting else 'ECONNRESET'}"


def _is_held_back(path: PacketPath) -> bool:
    evidence = path.diagnosis.evidence if path.diagnosis else ()
    return any(each.text.startswith(HELD_BACK) for each in evidence)
