"""Every cause that a diagnosis can name, and the words that `--expect` takes."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from ipttrace.path import Outcome


class Cause(StrEnum):
    """Why a packet met its fate; each member carries one line that says what it means."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> Self:
        """Make the member from its code and its meaning."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DELIVERED = "delivered", "the packet reached a socket, or the kernel answered its echo"
    ANSWERED = "answered", "it left by an interface, and its answer came back"
    NO_LISTENER = "no-listener", "every chain let it in, but no socket listens on that port"
    LISTENER_OTHER_ADDRESS = (
        "listener-other-address",
        "the port is open on another local address only",
    )
    LISTENER_OTHER_NETNS = (
        "listener-other-netns",
        "the port is open in another network namespace of this host only",
    )
    REDIRECT_NOT_IN_OUTPUT = (
        "redirect-not-in-output",
        "a packet made here never meets nat/PREROUTING, where the rule for it stands",
    )
    RULE_REJECT = "rule-reject", "a REJECT rule answered it with an error"
    RULE_DROP = "rule-drop", "a rule dropped it"
    POLICY_DROP = "policy-drop", "no rule decided, and the chain's policy is DROP"
    MARK_DROP = "mark-drop", "a rule dropped it for a mark that an earlier rule had set"
    OTHER_BACKEND_DROP = (
        "other-backend-drop",
        "one of iptables-legacy and nftables let it pass, the other dropped it",
    )
    MATCH_HOTDROP = "match-hotdrop", "a match refused the malformed packet without a word"
    QUEUE_NO_LISTENER = "queue-no-listener", "a rule queued it for a program that does not run"
    TPROXY_NO_SOCKET = "tproxy-no-socket", "a TPROXY rule found no socket for it"
    RP_FILTER = "rp-filter", "the way back to its source leads out of another interface"
    MARTIAN_LOOPBACK = (
        "martian-loopback",
        "it was to come into 127.0.0.0/8, or to leave it, and route_localnet is 0",
    )
    FORWARDING_OFF = "forwarding-off", "it is for another host, and this one does not forward"
    NO_ROUTE = "no-route", "there is no route to its destination"
    BLACKHOLE_ROUTE = (
        "blackhole-route",
        "the route to its destination is a blackhole, unreachable or prohibit route",
    )
    NEIGHBOUR_FAILED = "neighbour-failed", "the next host on the link does not answer ARP or ND"
    ACCEPT_QUEUE_FULL = "accept-queue-full", "the service does not accept connections fast enough"
    CONNTRACK_INVALID = "conntrack-invalid", "a rule dropped it because conntrack calls it INVALID"
    CONNTRACK_FULL = "conntrack-full", "the connection tracking table is full"
    STALE_CONNTRACK = (
        "stale-conntrack",
        "an older conntrack entry kept the nat rules from being asked",
    )
    UNTRACKED_NO_NAT = (
        "untracked-no-nat",
        "the nat rule that would send it on was not asked, because of NOTRACK",
    )
    MTU_EXCEEDED = "mtu-exceeded", "it is too large for the way, and may not be fragmented"
    TTL_EXCEEDED = "ttl-exceeded", "its TTL ran out here"
    HAIRPIN_NO_MASQUERADE = (
        "hairpin-no-masquerade",
        "it was sent back into the client's own network with the client's source address",
    )
    ASYMMETRIC_REPLY = (
        "asymmetric-reply",
        "the request arrived, but its answer took another way, or died on its own",
    )
    BAD_CHECKSUM = "bad-checksum", "a checksum is wrong"
    PROTOCOL_RESET = "protocol-reset", "the kernel reset the connection for a reason of TCP's own"
    KERNEL_DROP = "kernel-drop", "the kernel dropped it, and named the reason"
    REMOTE_REFUSED = "remote-refused", "it left this host, and the refusal came from outside"
    REMOTE_SILENT = "remote-silent", "it left this host, and nothing came back"
    OUTPUT_BLOCKED = "output-blocked", "the sending host's own rules stopped it on its way out"
    UNKNOWN = "unknown", "what was seen does not prove any cause"


EXPECTABLE = frozenset(Outcome) | frozenset(Cause)
"""The words that `--expect` takes: an outcome or a cause."""


def meets(word: str, outcome: Outcome, cause: str | None) -> bool:
    """Return whether a path of this outcome and cause is what `--expect word` asks for."""
    return word in (outcome, cause)
