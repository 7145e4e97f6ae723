"""Packet filters in the language of pcap-filter(7), compiled by libpcap for the kernel's xt_bpf.

The programs look at a packet from its IP header on (link type RAW), which is where netfilter's
hooks show it: lengths are those of the IP packet, and there is no Ethernet header.  libpcap asks
the name service for names of hosts and networks, which would send packets and may take long, so
such names are refused before it sees them; names of services and protocols come from local files.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator

from ipttrace.decode.text import clean_text
from ipttrace.errors import NotSupportedError, UsageError
from ipttrace.request import Instruction, PacketFilter

MAX_INSTRUCTIONS = 64
"""XT_BPF_MAX_NUM_INSTR of uapi/linux/netfilter/xt_bpf.h."""

ALL = ((6, 0, 0, 0xFFFF),)
"""BPF_RET | BPF_K: every packet matches."""

LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
"""Debian's name, everybody else's, and that of the development packages."""

DLT_RAW = 12
SNAPLEN = 0xFFFF
NETMASK_UNKNOWN = 0xFFFFFFFF
"""PCAP_NETMASK_UNKNOWN of pcap.h."""

HINT = (
    "See pcap-filter(7); a packet is seen from its IP header on: no MAC addresses, no VLAN tags, "
    "no ARP."
)
IPV4_ALONE = (
    "'{word}[...]' takes IPv4 packets alone: libpcap does not look behind IPv6 headers "
    "(without extension headers, ip6[40] is their first byte)"
)
TOO_LONG = "Make it shorter: name one IP version (ip and ..., ip6 and ...), or fewer addresses."
NO_NAMES = "Names of hosts are not looked up: write the address. See pcap-filter(7)."

_WORD = re.compile(r"\\?[A-Za-z0-9_:](?:[-_.:A-Za-z0-9]*[.:A-Za-z0-9])?|\[")
_DIRECTION = re.compile(r"(?<![-\\.:\w])(src|dst)(?![-.:\w])")
_INSIDE = re.compile(r"(?<![-\\.:\w])(tcp|udp|sctp|igmp|pim|vrrp)\s*\[")
_IPV4 = re.compile(r"\bip\b|\d\.\d")
"""Who writes these wants no others."""
_NUMBER = re.compile(r"(?:0[xX][0-9a-fA-F]+|[0-9]+)(?:\.[0-9]+){0,3}")

_KEYWORDS = re.compile(
    "and|or|not|less|greater|len|length|broadcast|multicast|"
    "ether|link|vlan|mpls|pppoed|pppoes|geneve|vxlan|"
    "(?:icmp|icmp6|tcp)-[a-z]+|(?:icmp|icmp6)(?:type|code)|tcpflags"
)
_QUALIFIERS = re.compile(
    "src|dst|host|net|mask|gateway|"
    "ip|ip6|ipv6|tcp|udp|sctp|icmp|icmp6|igmp|igrp|pim|vrrp|carp|ah|esp|arp|rarp"
)
"""Words after which a name is that of a host or network, if no word of the next kind follows."""
_NAMES_IN_FILES = frozenset({"port", "portrange", "proto", "protochain"})
_LINK_HEADERS = frozenset({"ether", "link", "fddi", "tr", "wlan", "ppp", "slip", "radio"})


class _Instruction(ctypes.Structure):
    """struct bpf_insn of pcap/bpf.h."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    """struct bpf_program of pcap/bpf.h."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compile_filter(text: str) -> PacketFilter:
    """Return the filter ready for the kernel; an empty one matches every packet.

    UsageError if it is none, if it asks for what a packet at netfilter's hooks does not have, or
    if it is too long for the kernel.
    """
    text = " ".join(text.split())
    if not text:
        return PacketFilter(text, ALL, ALL)
    _refuse_strangers(text)
    program = _compile(text)
    if len(program) > MAX_INSTRUCTIONS:
        long = f"it compiles to {len(program)} instructions, the kernel takes {MAX_INSTRUCTIONS}"
        raise _refusal(text, long, TOO_LONG)
    both = _compile(both_directions(text))
    both = both if len(both) <= MAX_INSTRUCTIONS else ()
    return PacketFilter(text, program, both, tuple(_cautions(text)))


def _cautions(text: str) -> Iterator[str]:
    """Yield what a filter means that its words do not say."""
    inside = _INSIDE.search(text)
    if inside is not None and not _IPV4.search(text):
        yield IPV4_ALONE.format(word=inside[1])


def both_directions(text: str) -> str:
    """Return a filter that also matches what `text` matches with `src` and `dst` swapped.

    A filter that names no direction matches both ways as it is, and is returned unchanged.
    """
    swapped = _DIRECTION.sub(lambda found: "dst" if found[1] == "src" else "src", text)
    return text if swapped == text else f"({text}) or ({swapped})"


def _refuse_strangers(text: str) -> None:
    """Raise UsageError for what libpcap would take and we do not."""
    if not text.isprintable():
        raise _refusal(text, "it has control characters")
    in_files, before = False, ""
    for word in _WORD.findall(text):
        if word in ("inbound", "outbound"):
            raise _refusal(text, f"netfilter does not say {word} of a packet")
        if before in _LINK_HEADERS and word == "[":
            raise _refusal(text, f"there is no {before} header")
        if word in _NAMES_IN_FILES or _QUALIFIERS.fullmatch(word):
            in_files = word in _NAMES_IN_FILES
        elif not in_files and _is_name(word):
            unknown = f"{word} is no word of the filter language and no address"
            raise _refusal(text, unknown, NO_NAMES)
        before = word


def _is_name(word: str) -> bool:
    """Return whether libpcap would look `word` up where a host or network can stand."""
    if word == "[" or ":" in word:
        return False
    return not (_KEYWORDS.fullmatch(word) or _NUMBER.fullmatch(word))


def _refusal(text: str, reason: str, hint: str = HINT) -> UsageError:
    return UsageError(f"cannot use packet filter '{clean_text(text)}': {clean_text(reason)}", hint)


def _compile(text: str) -> tuple[Instruction, ...]:
    """Return what libpcap makes of `text`, however long; UsageError in its own words."""
    library = _library(text)
    handle = library.pcap_open_dead(DLT_RAW, SNAPLEN)
    program = _Program()
    optimize = 1
    try:
        if library.pcap_compile(
            handle, ctypes.byref(program), text.encode(), optimize, NETMASK_UNKNOWN
        ):
            reason = library.pcap_geterr(handle).decode(errors="replace")
            raise _refusal(text, reason, "; ".join(_cautions(text)) or HINT)
        found = tuple(_instructions(program))
        library.pcap_freecode(ctypes.byref(program))
        return found
    finally:
        library.pcap_close(handle)


def _instructions(program: _Program) -> Iterator[Instruction]:
    for number in range(program.length):
        each = program.instructions[number]
        yield each.code, each.jt, each.jf, each.k


def _library(text: str) -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        handle, program = ctypes.c_void_p, ctypes.POINTER(_Program)
        library.pcap_open_dead.restype = handle
        library.pcap_compile.argtypes = [
            *(handle, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint)
        ]
        library.pcap_geterr.argtypes = [handle]
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_freecode.argtypes = [program]
        library.pcap_close.argtypes = [handle]
        return library
    raise NotSupportedError(
        f"cannot compile packet filter '{text}': there is no libpcap",
        "Install it: apt-get install libpcap0.8",
    )
