"""Traced packets as a pcapng file: each packet once, its hops as its comments.

draft-ietf-opsawg-pcapng: section header (4.1), interface description (4.2) and enhanced packet
block (4.3); options (3.5).  Written here rather than by scapy, whose writer opens a file by itself
and knows neither a section's comment nor an interface's description.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from struct import Struct

from ipttrace.decode.text import clean_text
from ipttrace.path import PacketPath
from ipttrace.render.about import About
from ipttrace.render.packet_bytes import packet_bytes
from ipttrace.render.plain import fate_lines, hop_lines, packet_line
from ipttrace.render.text import remarks
from ipttrace.result import TraceResult

SECTION, INTERFACE, PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER = 0x1A2B3C4D
LINKTYPE_RAW, DLT_RAW = 101, 12
"""A packet begins with its IPv4 or IPv6 header (https://www.tcpdump.org/linktypes.html).

The first is for files; libpcap 1.10 compares it with the second, which it made of the first
interface's, and then refuses the file for its second interface.  Readers take both for the same.
"""
SNAPLEN = 262144
HERE = "here"
"""Stands for an interface where a packet was made here and left by none."""
END, COMMENT = 0, 1
IF_NAME, IF_DESCRIPTION, IF_TSRESOL = 2, 3, 9
USER_APPLICATION, PACKET_FLAGS = 4, 2
INBOUND, OUTBOUND = 1, 2
MOST_OPTION = 8192
"""Bytes of one text; an option has 65,535 at most, and Wireshark cuts far earlier."""

_BLOCK = Struct("<II")
_OPTION = Struct("<HH")
_WORD = Struct("<I")
_SECTION = Struct("<IHHq")
_INTERFACE = Struct("<HHI")
_PACKET = Struct("<IIIII")

Option = tuple[int, bytes]


def pcapng_file(result: TraceResult, about: About) -> bytes:
    """Return a whole file; packets are in the order of their times."""
    paths = sorted(result.paths, key=lambda path: path.time)
    numbers = {key: number for number, key in enumerate(dict.fromkeys(map(_interface, paths)))}
    link = LINKTYPE_RAW if len(numbers) < 2 else DLT_RAW
    blocks = [_section_block(result, about)]
    blocks += [_interface_block(*key, link) for key in numbers or [(None, HERE)]]
    blocks += [_packet_block(path, numbers[_interface(path)]) for path in paths]
    return b"".join(blocks)


def _interface(path: PacketPath) -> tuple[str | None, str]:
    """Return the namespace and the interface where a packet was first seen."""
    return path.netns, path.in_interface or path.out_interface or HERE


def _section_block(result: TraceResult, about: About) -> bytes:
    words = [f"{about.title}, {about.date}", *(f"! {each}" for each in remarks(result))]
    options = [(COMMENT, _text(word)) for word in words]
    options.append((USER_APPLICATION, _text(about.tool)))
    return _block(SECTION, _SECTION.pack(BYTE_ORDER, 1, 0, -1), options)


def _interface_block(netns: str | None, name: str, link: int) -> bytes:
    where = f"namespace {netns}" if netns is not None else "the namespace of ipttrace"
    names = f"{netns}/{name}" if netns is not None else name
    described = f"{name} in {where}" if name != HERE else f"made in {where}"
    options = [(IF_NAME, _text(names)), (IF_DESCRIPTION, _text(described)), (IF_TSRESOL, b"\6")]
    return _block(INTERFACE, _INTERFACE.pack(link, 0, SNAPLEN), options)


def _packet_block(path: PacketPath, interface: int) -> bytes:
    known = packet_bytes(path.packet)
    ticks = max(0, round(path.time * 1_000_000))
    sizes = len(known.data), known.length
    head = _PACKET.pack(interface, ticks >> 32 & 0xFFFFFFFF, ticks & 0xFFFFFFFF, *sizes)
    comments = [f"ipttrace: {packet_line(path)}", *hop_lines(path), *fate_lines(path), known.note]
    options = [(COMMENT, _text(comment)) for comment in comments]
    direction = INBOUND if path.in_interface else OUTBOUND
    options.append((PACKET_FLAGS, _WORD.pack(direction)))
    return _block(PACKET, head + _padded(known.data), options)


def _text(text: str) -> bytes:
    data = clean_text(text).encode("utf-8", "replace")
    return (
        data if len(data) <= MOST_OPTION else data[:MOST_OPTION].decode("utf-8", "ignore").encode()
    )


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(options: Iterable[Option]) -> Iterator[bytes]:
    for code, value in options:
        yield _OPTION.pack(code, len(value)) + _padded(value)
    yield _OPTION.pack(END, 0)


def _block(kind: int, body: bytes, options: Sequence[Option]) -> bytes:
    content = body + b"".join(_options(options))
    length = len(content) + 12
    return _BLOCK.pack(kind, length) + content + _WORD.pack(length)
