"""Whatever stands in the kernel log gives values; what the kernel prints is read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from ipttrace.decode.kernel_log import KernelLog
from ipttrace.event import Lost, TraceEvent, Undecoded
from ipttrace.headers import TCP_FLAG_WORDS, address_text
from ipttrace.netfilter import PacketFamily
from ipttrace.packet import PacketSummary
from tests.recordings import DATA

VALUES = TraceEvent | Lost | Undecoded
INTERFACES = {"lo": 1, "s0": 2}


@cache
def recorded() -> tuple[bytes, ...]:
    files = sorted(DATA.glob("kernel-log-*.txt"))
    lines = (line for file in files for line in file.read_bytes().splitlines(keepends=True))
    return tuple(line for line in lines if not line.startswith(b"#"))


def values_only(*data: bytes) -> bool:
    log = KernelLog()
    events = [event for record in data for event in log.decode(record, 1.0, INTERFACES)]
    return all(isinstance(event, VALUES) for event in events)


@given(st.lists(st.binary(max_size=300), max_size=3))
def test_any_bytes_give_values(data: list[bytes]) -> None:
    assert values_only(*data)


@given(st.text(max_size=200), st.text(max_size=60))
def test_any_text_gives_values(head: str, rest: str) -> None:
    text = f"TRACE: {head}:rule:1 IN=s0 OUT= {rest}".encode("utf-8", "replace")
    assert values_only(b"4,1,2,-;" + text)


@given(st.data())
def test_any_change_to_a_recording_gives_values(data: st.DataObject) -> None:
    changed = bytearray(data.draw(st.sampled_from(recorded())))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    assert values_only(bytes(changed))


def test_every_truncation_of_a_recording_gives_values() -> None:
    shapes = {len(line): line for line in recorded()}
    for line in shapes.values():
        assert all(values_only(line[:kept]) for kept in range(len(line)))


@given(st.lists(st.sampled_from(range(10_000)), max_size=6))
def test_every_record_counts_or_is_lost(picks: list[int]) -> None:
    """Sequence numbers rise; every number up to the last is a record that was read, or lost."""
    sequences = sorted(set(picks))
    log = KernelLog()
    lost = 0
    for sequence in sequences:
        for event in log.decode(b"4,%d,1,-;text\n" % sequence, 1.0, INTERFACES):
            assert isinstance(event, Lost)
            lost += event.count or 0
    assert lost + len(sequences) == (sequences[-1] - sequences[0] + 1 if sequences else 0)


WORDS = st.integers(0, 0xFFFF)
NUMBERS = st.integers(0, 0xFFFFFFFF)


@st.composite
def packets(draw: st.DrawFn) -> PacketSummary:
    """Return a packet as far as the kernel log shows one."""
    family = draw(st.sampled_from(list(PacketFamily)))
    size = 4 if family is PacketFamily.IPV4 else 16
    protocol = draw(st.sampled_from(["tcp", "udp", "47"]))
    offset = draw(st.sampled_from([0, 0, 48]))
    more = draw(st.booleans())
    ports = offset == 0 and protocol != "47"
    tcp = ports and protocol == "tcp"
    flags = draw(st.sets(st.sampled_from(TCP_FLAG_WORDS)))
    fragment = family is PacketFamily.IPV4 or offset > 0 or more
    return PacketSummary(
        family,
        protocol,
        address_text(draw(st.binary(min_size=size, max_size=size))),
        address_text(draw(st.binary(min_size=size, max_size=size))),
        sport=draw(WORDS) if ports else None,
        dport=draw(WORDS) if ports else None,
        ip_id=draw(WORDS) if fragment else None,
        length=draw(WORDS),
        ttl=draw(st.integers(0, 255)),
        tcp_flags=tuple(word for word in TCP_FLAG_WORDS if tcp and word in flags),
        tcp_seq=draw(NUMBERS) if tcp else None,
        tcp_ack=draw(NUMBERS) if tcp else None,
        fragment_offset=offset,
        more_fragments=more,
    )


def printed(packet: PacketSummary) -> str:
    """Write a packet as nf_log_syslog does."""
    return "".join([*_network(packet), *_transport(packet)])


def _network(packet: PacketSummary) -> Iterator[str]:
    if packet.family is PacketFamily.IPV4:
        yield f"SRC={IPv4Address(packet.src)} DST={IPv4Address(packet.dst)} LEN={packet.length} "
        yield f"TOS=0x00 PREC=0x00 TTL={packet.ttl} ID={packet.ip_id} "
        yield "MF " if packet.more_fragments else ""
        yield f"FRAG:{packet.fragment_offset // 8} " if packet.fragment_offset else ""
        return
    src, dst = IPv6Address(packet.src).exploded, IPv6Address(packet.dst).exploded
    yield f"SRC={src} DST={dst} LEN={packet.length} TC=0 HOPLIMIT={packet.ttl} FLOWLBL=1048575 "
    if packet.ip_id is not None:
        more = "INCOMPLETE " if packet.more_fragments else ""
        yield f"OPT ( FRAG:{packet.fragment_offset} {more}ID:{packet.ip_id:08x} ) "


def _transport(packet: PacketSummary) -> Iterator[str]:
    yield f"PROTO={packet.protocol.upper()} "
    if packet.sport is None:
        return
    yield f"SPT={packet.sport} DPT={packet.dport} "
    if packet.protocol == "udp":
        yield "LEN=12 "
        return
    yield f"SEQ={packet.tcp_seq} ACK={packet.tcp_ack} WINDOW=1 RES=0x00 "
    yield "".join(f"{word} " for word in reversed(TCP_FLAG_WORDS) if word in packet.tcp_flags)
    yield "URGP=0 OPT (0204) "


@given(packets(), NUMBERS)
def test_what_is_printed_is_read_back(packet: PacketSummary, mark: int) -> None:
    end = f"MARK=0x{mark:x} " if mark else ""
    text = f"4,1,2,-;TRACE: raw:PREROUTING:policy:1 IN=lo OUT= MAC= {printed(packet)}{end}\n"
    (event,) = KernelLog().decode(text.encode(), 1.0, INTERFACES)
    assert isinstance(event, TraceEvent)
    extended = b"" if packet.family is PacketFamily.IPV6 and packet.ip_id is not None else None
    packet = replace(packet, extended=extended)
    assert (event.packet, event.mark, event.in_index) == (packet, mark, 1)
