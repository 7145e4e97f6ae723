"""What the lists of the screen say, as values made from paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from ipttrace.decode.text import clean_text
from ipttrace.event import TraceKind
from ipttrace.netfilter import FATAL_VERDICTS, Backend, Basis
from ipttrace.packet import PacketSummary
from ipttrace.path import (
    ChainHop,
    DropHop,
    Hop,
    NatHop,
    Outcome,
    PacketPath,
    ResetHop,
    Role,
    RouteHop,
    SocketHop,
    SocketState,
    WireHop,
    fate_word,
)
from ipttrace.render.stations import short_change, short_nat
from ipttrace.render.table import NOISE, cut_front
from ipttrace.render.words import EXTENSIONS as EXTENSION_WORDS
from ipttrace.render.words import (
    drop_words,
    reset_words,
    route_words,
    rule_words,
    socket_words,
    table_name,
)
from ipttrace_tui.packet_log import Entry


class Tone(StrEnum):
    """How a piece of text is meant; its words say the same."""

    PLAIN = "plain"
    MUTED = "muted"
    STRONG = "strong"
    GOOD = "good"
    BAD = "bad"
    WARN = "warn"
    CHANGED = "changed"
    TITLE = "title"


OUTCOMES: dict[Outcome, tuple[str, Tone]] = {
    Outcome.DELIVERED: ("✓", Tone.GOOD),
    Outcome.FORWARDED: ("→", Tone.GOOD),
    Outcome.SENT: ("↗", Tone.GOOD),
    Outcome.REJECTED: ("✗", Tone.BAD),
    Outcome.REFUSED: ("✗", Tone.BAD),
    Outcome.DROPPED: ("✗", Tone.BAD),
    Outcome.LOST: ("?", Tone.WARN),
    Outcome.INCOMPLETE: ("…", Tone.WARN),
}
"""A glyph and a tone for each fate; the word itself stands beside them."""

ROLES = {Role.PROBE: "", Role.REPLY: "reply to {}", Role.OBSERVED: "seen"}

EXTENSIONS = {"0": "hbh", "43": "route", "44": "frag", "51": "ah", "60": "opts"}
"""Extension headers of IPv6 in a column's width, where nft does not show what is behind them."""

COMMENT = re.compile(r' -m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+)')

LEAST_CRITERIA = 8
"""Columns of a cut rule's criteria below which its target is cut too."""


@dataclass(frozen=True, slots=True)
class PacketRow:
    """One line of the packet list."""

    id: str
    protocol: str
    ways: tuple[str, ...]
    """Source and destination from the longest form to the shortest."""
    outcome: str
    glyph: str
    tone: Tone


@dataclass(frozen=True, slots=True)
class HopRow:
    """One line of the hop list."""

    table: str
    chain: str
    place: str
    """The rule's number, `policy`, `end`, or empty."""
    text: str
    """The rule without `-A CHAIN`, or what happened."""
    target: str
    verdict: str
    changes: str
    counter: str
    tone: Tone


def entry_row(entry: Entry) -> PacketRow:
    """Return a packet's line in the packet list."""
    glyph, tone = OUTCOMES[entry.outcome]
    protocol = protocol_column(entry.protocol, entry.src)
    ways = tuple(clean_text(way) for way in _ways(entry))
    return PacketRow(
        str(entry.id), protocol, ways, fate_word(entry.outcome, entry.role), glyph, tone
    )


def protocol_column(protocol: str, src: str) -> str:
    """Return a protocol in few columns, by the first extension header where that hides it."""
    return clean_text(EXTENSIONS.get(protocol, protocol) if ":" in src else protocol)


def _ways(packet: PacketSummary | Entry) -> tuple[str, ...]:
    src, dst = (packet.src, packet.sport), (packet.dst, packet.dport)
    tails = (_tail(packet.src), packet.sport), (_tail(packet.dst), packet.dport)
    full, short = (f"{_endpoint(*a)} > {_endpoint(*b)}" for a, b in ((src, dst), tails))
    if packet.sport is None or packet.dport is None:
        return full, short
    ports = f":{packet.sport}", f":{packet.dport}"
    named = f"{_tail(packet.src)} > {_endpoint(*tails[1])}"
    ends = f"> {_endpoint(*tails[1])}", f">{ports[1]}"
    return full, short, named, " > ".join(ports), ">".join(ports), *ends


def _endpoint(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _tail(address: str) -> str:
    """Return the end of an address: `..7`, `..:7`."""
    separator = ":" if ":" in address else "."
    return f"..{separator if separator == ':' else ''}{address.rsplit(separator, 1)[-1]}"


def packet_title(path: PacketPath) -> str:
    """Return a path's packet in one line."""
    packet = path.packet
    protocol = EXTENSION_WORDS.get(packet.protocol) if packet.partial else None
    words = [protocol or packet.protocol, _ways(packet)[0], " ".join(packet.tcp_flags)]
    if packet.icmp:
        words.append(f"type {packet.icmp.type} code {packet.icmp.code}")
    role = ROLES[path.role].format(path.request or "?")
    words += [f"in {path.netns}" if path.netns else "", role]
    return clean_text("  ".join(word for word in words if word))


def hop_rows(path: PacketPath) -> tuple[HopRow, ...]:
    """Return the lines of a path's hop list, one a hop."""
    both = len({hop.chain.backend for hop in path.chain_hops}) > 1
    return tuple(_hop_row(hop, both) for hop in path.hops)


def _hop_row(hop: Hop, both: bool) -> HopRow:
    match hop:
        case ChainHop():
            return _chain_row(hop, both)
        case NatHop():
            text = clean_text(short_nat(hop))
            how = f"rewritten by conntrack, {hop.basis.value}"
            return HopRow("nat", "", "", how, "", "", text, "", Tone.CHANGED)
        case WireHop():
            where = clean_text(hop.interface or "wire")
            tone = Tone.WARN if hop.event == "contained" else Tone.MUTED
            text = "kept inside by ipttrace" if hop.event == "contained" else ""
            return HopRow("wire", where, "", text or hop.event, hop.event, "", "", "", tone)
        case RouteHop():
            return HopRow("route", "", "", route_words(hop), "", "", "", "", Tone.MUTED)
        case SocketHop():
            tone = Tone.BAD if hop.state is SocketState.NONE else Tone.GOOD
            return HopRow("socket", "", "", socket_words(hop), "", "", "", "", tone)
        case DropHop():
            return HopRow("kernel", "drop", "", drop_words(hop), "", "", "", "", Tone.BAD)
        case ResetHop():
            return HopRow("tcp", "reset", "", reset_words(hop), "", "", "", "", Tone.BAD)


def _chain_row(hop: ChainHop, both: bool) -> HopRow:
    name = table_name(hop.chain)
    table = f"{name}·{_short(hop.chain.backend)}" if both else name
    return HopRow(
        table,
        clean_text(hop.chain.chain),
        _place(hop),
        rule_words(hop.rule or "", hop.chain.chain),
        clean_text(hop.target or ""),
        verdict_words(hop),
        clean_text(", ".join(map(short_change, hop.changes))),
        f"+{hop.counter.packets}" if hop.counter else "",
        _tone(hop),
    )


def _short(backend: Backend) -> str:
    return "nft" if backend is Backend.NFT else "leg"


def _place(hop: ChainHop) -> str:
    if hop.event is not TraceKind.RULE:
        return "policy" if hop.event is TraceKind.POLICY else "end"
    if hop.number is not None:
        return str(hop.number)
    return f"#{hop.handle}" if hop.handle is not None else "?"


def cut_rule(text: str, width: int) -> str:
    """Return a rule in at most `width` columns: its target stays, what it needs less is cut.

    What says nothing goes first (full masks, `-m tcp` behind `-p tcp`), then the target's options,
    then comments, then the front of the criteria: the last one tells the most.
    """
    if len(text) > width:
        text = NOISE.sub("", text)
    if len(text) <= width:
        return text
    at = max(text.rfind(" -j "), text.rfind(" -g "))
    criteria, words = text[: max(at, 0)], text[at + 1 :].split()
    target = " ".join([*words[:2], *(["…"] if len(words) > 2 else [])])
    room = width - len(target) - 1
    if at <= 0 or room < LEAST_CRITERIA:
        return text[: max(0, width - 1)] + "…"
    if len(criteria) <= room:
        return f"{criteria} {target}"
    brief = COMMENT.sub("", criteria)
    if brief != criteria and len(f"{brief} …") <= room:
        brief += " …"
    front, bare = cut_front(brief, room), target.removesuffix(" …")
    if not front.startswith("…"):
        # Where an option is kept for it, one ellipsis does for both ends.
        other = cut_front(brief, width - len(bare) - 1)
        front, target = (other, bare) if other.startswith("…") else (front, target)
    return f"{front} {target}"


def verdict_words(hop: ChainHop) -> str:
    """Return the verdict; `?` behind it where it is not known for sure."""
    if hop.verdict is None:
        return "?"
    return f"{hop.verdict.value}{'?' if hop.basis is Basis.UNKNOWN else ''}"


def _tone(hop: ChainHop) -> Tone:
    if hop.verdict in FATAL_VERDICTS:
        return Tone.BAD
    if hop.changes:
        return Tone.CHANGED
    return Tone.PLAIN if hop.event is TraceKind.RULE else Tone.MUTED


def _changed(hop: Hop) -> bool:
    return isinstance(hop, ChainHop) and bool(hop.changes)


def telling_hop(path: PacketPath) -> int | None:
    """Return the hop to look at first: where it died, else the last change, else the first."""
    hops = list(enumerate(path.hops))
    dead = [i for i, hop in hops if isinstance(hop, ChainHop) and hop.verdict in FATAL_VERDICTS]
    dead = dead or [i for i, hop in hops if isinstance(hop, DropHop)]
    changed = [i for i, hop in hops if isinstance(hop, NatHop) or _changed(hop)]
    return (dead or changed or [0])[-1] if hops else None
