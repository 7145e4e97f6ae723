"""The headers of one packet, read from the words that the kernel log has for them.

Words and their order: dump_ipv4_packet, dump_ipv6_packet and what they call, in
net/netfilter/nf_log_syslog.c.  The log shows no payload, no ports but TCP's, UDP's and UDP-Lite's,
and of a truncated transport header nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from ipttrace.decode.attributes import Malformed
from ipttrace.headers import TCP_FLAG_WORDS, address_text, protocol_word
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import IcmpHeader, PacketSummary

PROTOCOLS = {"TCP": 6, "UDP": 17, "UDPLITE": 136, "ICMP": 1, "ICMPv6": 58, "AH": 51, "ESP": 50}
"""The protocols that the log has words for; others are `PROTO=<number>`."""

FRAGMENT_UNIT = 8
"""Bytes: IPv4's FRAG counts in these, IPv6's in bytes."""

_IPV4 = re.compile(
    r"SRC=([0-9.]+) DST=([0-9.]+) LEN=([0-9]{1,10}) TOS=0x[0-9A-F]{2} PREC=0x[0-9A-F]{2} "
    r"TTL=([0-9]{1,3}) ID=([0-9]{1,5}) (?:CE )?(?:DF )?(MF )?(?:FRAG:([0-9]{1,5}) )?"
    r"(?:OPT \([0-9A-F]*\) )?"
)
_IPV6 = re.compile(
    r"SRC=([0-9a-f:]+) DST=([0-9a-f:]+) LEN=([0-9]{1,10}) TC=[0-9]{1,3} HOPLIMIT=([0-9]{1,3}) "
    r"FLOWLBL=[0-9]{1,7} ((?:OPT \( [^()]*\) ?|FRAG:[0-9]+ (?:INCOMPLETE )?ID:[0-9a-f]+ )*)"
)
_FRAGMENT = re.compile(r"FRAG:([0-9]{1,5}) (INCOMPLETE )?ID:([0-9a-f]{8}) ")
_PROTOCOL = re.compile(r"PROTO=([A-Za-z0-9]{1,7}) ")
_PORTS = re.compile(r"SPT=([0-9]{1,5}) DPT=([0-9]{1,5}) ")
_TCP = re.compile(
    r"(?:SEQ=([0-9]{1,10}) ACK=([0-9]{1,10}) )?WINDOW=[0-9]+ RES=0x[0-9a-f]{2} ((?:[A-Z]{2,3} )*)"
)
_ICMP = re.compile(r"TYPE=([0-9]{1,3}) CODE=([0-9]{1,3}) (?:ID=([0-9]{1,5}) SEQ=([0-9]{1,5}) )?")
_QUOTE = re.compile(r"(?:GATEWAY=[0-9.]+ |POINTER=[0-9a-f]+ )?\[")


@dataclass(slots=True)
class _Words:
    """The text, and how far it was read."""

    text: str
    at: int

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Read what `pattern` matches here; None if it does not."""
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return match


def read_logged_packet(text: str, at: int = 0) -> PacketSummary:
    """Return the packet whose first word stands at `at`; raises Malformed."""
    return _packet(_Words(text, at), quoted=False)


def _packet(words: _Words, *, quoted: bool) -> PacketSummary:
    packet, rest = _ipv4(words) or _ipv6(words)
    protocol = words.take(_PROTOCOL)
    if protocol is None:
        if "ESP " in rest:
            return replace(packet, protocol=protocol_word(PROTOCOLS["ESP"]))
        raise Malformed("a logged packet without a protocol")
    number = _number_of(protocol[1])
    packet = replace(packet, protocol=protocol_word(number))
    if protocol[1] in ("ICMP", "ICMPv6"):
        return _with_icmp(packet, words, quoted=quoted)
    return _with_ports(packet, words)


def _number_of(word: str) -> int:
    if word in PROTOCOLS:
        return PROTOCOLS[word]
    if word.isdecimal() and int(word) < 256:
        return int(word)
    raise Malformed(f"a logged packet of protocol {word}")


def _ipv4(words: _Words) -> tuple[PacketSummary, str] | None:
    match = words.take(_IPV4)
    if match is None:
        return None
    src, dst, length, ttl, ip_id, more, offset = match.groups()
    packet = PacketSummary(
        PacketFamily.IPV4,
        "",
        _address(src, IPv4Address),
        _address(dst, IPv4Address),
        ip_id=int(ip_id),
        length=int(length),
        ttl=int(ttl),
        fragment_offset=int(offset or 0) * FRAGMENT_UNIT,
        more_fragments=more is not None,
    )
    return packet, ""


def _ipv6(words: _Words) -> tuple[PacketSummary, str]:
    match = words.take(_IPV6)
    if match is None:
        raise Malformed("a logged packet without a network header")
    src, dst, length, ttl, options = match.groups()
    packet = PacketSummary(
        PacketFamily.IPV6,
        "",
        _address(src, IPv6Address),
        _address(dst, IPv6Address),
        length=int(length),
        ttl=int(ttl),
        extended=b"" if options else None,
    )
    fragment = _FRAGMENT.search(options)
    if fragment is not None:
        packet = replace(
            packet,
            ip_id=int(fragment[3], 16),
            fragment_offset=int(fragment[1]),
            more_fragments=fragment[2] is not None,
        )
    return packet, options


def _address(text: str, kind: type[IPv4Address | IPv6Address]) -> str:
    try:
        return address_text(kind(text).packed)
    except AddressValueError as error:
        raise Malformed(f"a logged packet with the address {text}") from error


def _with_ports(packet: PacketSummary, words: _Words) -> PacketSummary:
    ports = words.take(_PORTS)
    if ports is None:
        return packet
    packet = replace(packet, sport=int(ports[1]), dport=int(ports[2]))
    tcp = words.take(_TCP) if packet.protocol == "tcp" else None
    if tcp is None:
        return packet
    said = frozenset(tcp[3].split())
    return replace(
        packet,
        tcp_seq=int(tcp[1]) if tcp[1] else None,
        tcp_ack=int(tcp[2]) if tcp[2] else None,
        tcp_flags=tuple(word for word in TCP_FLAG_WORDS if word in said),
    )


def _with_icmp(packet: PacketSummary, words: _Words, *, quoted: bool) -> PacketSummary:
    match = words.take(_ICMP)
    if match is None:
        return packet
    kind, code, echo_id, echo_seq = (None if each is None else int(each) for each in match.groups())
    packet = replace(packet, icmp=IcmpHeader(kind or 0, code or 0, echo_id, echo_seq))
    if quoted or words.take(_QUOTE) is None:
        return packet
    return replace(packet, quoted=_quoted(words))


def _quoted(words: _Words) -> PacketSummary | None:
    """Return the packet in brackets; None unless it is all there."""
    end = words.text.find("]", words.at)
    if "INCOMPLETE [" in words.text[words.at : end]:
        return None
    try:
        return _packet(words, quoted=True)
    except Malformed:
        return None
