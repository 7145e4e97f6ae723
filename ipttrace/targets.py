"""What iptables targets and nft statements do: the verdict they end in, and what they may change.

Verdicts of the legacy targets are those of net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c:
a target that returns XT_CONTINUE is `CONTINUE`; one that the table does not name continues too.
"""

from __future__ import annotations

import re

from ipttrace.netfilter import Verdict

STANDARD = {
    "ACCEPT": Verdict.ACCEPT,
    "DROP": Verdict.DROP,
    "RETURN": Verdict.RETURN,
    "QUEUE": Verdict.QUEUE,
    "NFQUEUE": Verdict.QUEUE,
    "REJECT": Verdict.REJECT,
    "DNAT": Verdict.ACCEPT,
    "SNAT": Verdict.ACCEPT,
    "REDIRECT": Verdict.ACCEPT,
    "MASQUERADE": Verdict.ACCEPT,
    "NETMAP": Verdict.ACCEPT,
    "TPROXY": Verdict.ACCEPT,
    "SYNPROXY": Verdict.STOLEN,
}
"""Targets that end the walk of their base chain (RETURN: of their chain)."""


def verdict_of(target: str | None) -> Verdict:
    """Return the verdict that a matching rule with this extension target ends in."""
    return STANDARD.get(target or "", Verdict.CONTINUE)


def answers(target: str | None) -> bool:
    """Tell whether a target takes a packet in a socket's place (nf_synproxy_core.c)."""
    return (target or "").upper() == "SYNPROXY"


ADDRESS_FIELDS = frozenset({"src", "dst", "sport", "dport"})
_DESTINATION = frozenset({"dst", "dport"})
_SOURCE = frozenset({"src", "sport"})
_MARK = frozenset({"mark"})
_TTL = frozenset({"ttl"})

CHANGES = {
    "DNAT": _DESTINATION,
    "REDIRECT": _DESTINATION,
    "SNAT": _SOURCE,
    "MASQUERADE": _SOURCE,
    "NETMAP": ADDRESS_FIELDS,
    "MARK": _MARK,
    "CONNMARK": _MARK,
    "HMARK": _MARK,
    "SET": _MARK,
    "TPROXY": _MARK,
    "TTL": _TTL,
    "HL": _TTL,
}
"""Header fields that a target may rewrite."""

_NFT_CHANGES = (
    (re.compile(r"\bdnat\b|\bredirect\b"), _DESTINATION),
    (re.compile(r"\bsnat\b|\bmasquerade\b"), _SOURCE),
    (re.compile(r"\bmark set\b"), _MARK),
    (re.compile(r"\bttl set\b|\bhoplimit set\b"), _TTL),
    (re.compile(r"\b(saddr|sport) set\b"), _SOURCE),
    (re.compile(r"\b(daddr|dport) set\b"), _DESTINATION),
)


_TRANSLATES = re.compile(r"\b(?:dnat|redirect|snat|masquerade)\b")


def translates(target: str | None, text: str | None) -> bool:
    """Tell whether a rule has conntrack rewrite the addresses, rather than doing so itself."""
    if target in CHANGES:
        return bool(ADDRESS_FIELDS & CHANGES[target])
    return text is not None and not text.startswith("-A ") and bool(_TRANSLATES.search(text))


def may_change(target: str | None, text: str | None) -> frozenset[str]:
    """Return the header fields that a rule with this target or nft text may rewrite."""
    if target in CHANGES:
        return CHANGES[target]
    if text is None or text.startswith("-A "):
        return frozenset()
    found = [fields for pattern, fields in _NFT_CHANGES if pattern.search(text)]
    return frozenset().union(*found)


_COPY = re.compile(r"(?:^| )dup to ")


def copies(target: str | None, text: str | None) -> bool:
    """Tell whether a rule sends a copy of the packet away, which starts at OUTPUT.

    The packet waits meanwhile (nf_dup_ipv4 in net/ipv4/netfilter/nf_dup_ipv4.c).
    """
    return target == "TEE" or (text is not None and _COPY.search(text) is not None)


_SENT_ON = re.compile(
    r"(?:--to-destination |\bdnat (?:ip6? )?to )(?:\[([0-9a-f:]+)\]|([0-9a-f.:]+))"
)


def sent_on_to(text: str | None) -> tuple[str, int | None] | None:
    """Return the one address and port that a DNAT rule sends packets on to.

    None where it may choose among several, or changes the port alone.
    """
    found = _SENT_ON.search(text or "")
    if found is None or (text or "")[found.end() :].startswith("-"):
        return None
    rest = (text or "")[found.end() :].partition(" ")[0]
    bracketed, plain = found.groups()
    address, port = bracketed or plain, rest.removeprefix(":") if bracketed else ""
    if plain and plain.count(":") == 1:
        address, _, port = plain.partition(":")
    if not address or (port and not port.isdecimal()) or "-" in rest:
        return None
    return address, int(port) if port else None
