"""What a native nft rule asks of a packet, in iptables' options, as far as that is certain.

The text is that of `nft -s list ruleset` (nft(8)).  Whatever is not plainly a match on addresses,
ports, interfaces, marks or the conntrack state ends the reading: the rest is one criterion that
nothing judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ipttrace.criteria import Criterion

COUNTER = re.compile(r'("[^"]*")|\bcounter\b(?: name "[^"]*")?\s*')
COMMENT = re.compile(r'\bcomment "[^"]*"\s*')
ENDS = frozenset(
    {"accept", "drop", "reject", "jump", "goto", "return", "continue", "queue", "dnat", "snat"}
    | {"redirect", "masquerade", "tproxy", "synproxy"}
)
"""Words of statements behind which no criteria stand; others, `limit` too, are not read."""

VALUE = r"(?P<not>!= )?(?P<value>\{[^{}:]*\}|\"[^\"]*\"|[^\s{}@$]+)(?= |$)"
MATCHES = tuple(
    (re.compile(f"{words} {VALUE}"), option)
    for words, option in (
        (r"(?P<proto>tcp|udp|sctp) dport", "--dports"),
        (r"(?P<proto>tcp|udp|sctp) sport", "--sports"),
        (r"(?P<family>ip6?) saddr", "-s"),
        (r"(?P<family>ip6?) daddr", "-d"),
        (r"(?:meta )?iif(?:name)?", "-i"),
        (r"(?:meta )?oif(?:name)?", "-o"),
        (r"meta l4proto", "-p"),
        (r"ip protocol", "-p"),
        (r"ct state", "--ctstate"),
        (r"(?:meta )?mark", "--mark"),
    )
)
LISTS = frozenset({"--dports", "--sports", "--ctstate"})
"""Options that take several values."""
OPERATORS = frozenset(
    {"and", "or", "&", "|", "<", ">", "<=", ">=", "^", "xor", "set", "map", "vmap"}
)


def nft_criteria(text: str) -> tuple[Criterion, ...]:
    """Return what a native rule asks of a packet."""
    return tuple(_criteria(COMMENT.sub(" ", without_counters(text)).strip()))


def without_counters(text: str) -> str:
    """Return a native rule's text without the statements that only count."""
    return COUNTER.sub(lambda match: match[1] or "", text).strip()


def _criteria(text: str) -> Iterator[Criterion]:
    rest = re.sub(r"\s+", " ", text)
    while rest and rest.split(" ", 1)[0] not in ENDS:
        for pattern, option in MATCHES:
            found = pattern.match(rest)
            behind = rest[found.end() :].strip() if found else ""
            if found and behind.split(" ", 1)[0] not in OPERATORS and _is_plain(option, found):
                yield from _read(option, found)
                rest = behind
                break
        else:
            yield Criterion("nft", text=rest)
            return


def _is_plain(option: str, found: re.Match[str]) -> bool:
    several = found["value"].startswith("{") or "," in found["value"]
    return found["value"] not in OPERATORS and (not several or option in LISTS)


def _read(option: str, found: re.Match[str]) -> Iterator[Criterion]:
    value = ",".join(part.strip(' "') for part in found["value"].strip("{} ").split(","))
    if option in ("--dports", "--sports"):
        yield Criterion("-p", found["proto"], text=found[0])
        value = value.replace("-", ":")
    elif option in ("-i", "-o"):
        value = f"{value[:-1]}+" if value.endswith("*") else value
    elif option == "--ctstate":
        value = value.upper()
    yield Criterion(option, value, bool(found["not"]), text=found[0])
