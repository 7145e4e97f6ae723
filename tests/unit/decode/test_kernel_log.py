"""The kernel log's lines: recorded ones, each trap by name, and lines that imitate a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ipttrace.decode.kernel_log import OVERWRITTEN, REMEMBERED, KernelLog, decode_line
from ipttrace.decode.netlink import decode_datagram
from ipttrace.event import Event, Lost, TraceEvent, TraceKind, Undecoded
from ipttrace.headers import TCP_FLAG_WORDS
from ipttrace.netfilter import Hook, PacketFamily, TableFamily
from ipttrace.packet import IcmpHeader, PacketSummary
from tests.recordings import DATA, read_recording
from tests.traffic import ADDRESSES

NAMES = sorted(path.stem.removeprefix("kernel-log-") for path in DATA.glob("kernel-log-*.txt"))
REPORTS = sorted(set(NAMES) - {"foreign4"})
INTERFACES = {"lo": 1, "s0": 2}

UDP = (
    "SRC=198.51.100.2 DST=198.51.100.1 LEN=32 TOS=0x00 PREC=0x00 TTL=64 ID=4242 PROTO=UDP "
    "SPT=40001 DPT=9 LEN=12 "
)
TCP = (
    "SRC=198.51.100.2 DST=198.51.100.1 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=7 DF PROTO=TCP "
    "SPT=40000 DPT=80 SEQ=1000 ACK=0 WINDOW=64240 RES=0x00 SYN URGP=0 "
)
MAC = "MAC=02:00:00:00:00:01:02:00:00:00:00:02:08:00 "
MACS = "MACSRC=02:00:00:00:00:01 MACDST=02:00:00:00:00:02 "
CAME_IN = f"IN=s0 OUT= {MAC}"


def records(name: str) -> Iterator[bytes]:
    """Yield what each read() of /dev/kmsg returned."""
    for line in (DATA / f"kernel-log-{name}.txt").read_bytes().splitlines(keepends=True):
        if not line.startswith(b"#"):
            yield line


def decoded(*data: bytes) -> list[Event]:
    log = KernelLog()
    return [event for record in data for event in log.decode(record, 1.0, INTERFACES)]


def reports(name: str) -> list[TraceEvent]:
    return [event for event in decoded(*records(name)) if isinstance(event, TraceEvent)]


def line(text: str, level: int = 4, sequence: int = 1) -> bytes:
    return f"{level},{sequence},1000,-;{text}\n".encode()


def only(text: str) -> TraceEvent:
    (event,) = decoded(line(text))
    assert isinstance(event, TraceEvent)
    return event


def packet_of(text: str) -> PacketSummary:
    packet = only(f"TRACE: raw:PREROUTING:policy:2 {CAME_IN}{text}").packet
    assert packet is not None
    return packet


# -- the same packets as in the recordings of NFLOG


def comparable(event: TraceEvent) -> TraceEvent:
    """Return an event as both ways of recording have it: traffic that is the same each time."""
    assert event.packet is not None
    packet = as_logged(event.packet)
    if event.packet.src in {server for _, server in ADDRESSES.values()}:
        packet = replace(packet, ip_id=None)
    return replace(
        event,
        time=0.0,
        sequence=None,
        packet=packet,
        in_index=None if event.in_index is None else 2,
        out_index=None if event.out_index is None else 2,
    )


def as_logged(packet: PacketSummary) -> PacketSummary:
    """Return a packet without what the kernel log does not show."""
    quoted = as_logged(packet.quoted) if packet.quoted else None
    extended = b"" if packet.extended is not None else None
    shown = replace(packet, payload=b"", quoted=quoted, extended=extended)
    if packet.protocol not in {"tcp", "udp"} or is_cut(packet):
        return replace(shown, sport=None, dport=None, tcp_seq=None)
    return shown


def is_cut(packet: PacketSummary) -> bool:
    """Tell whether the TCP header is not all there: the log then shows nothing of it."""
    return packet.protocol == "tcp" and packet.length == 30


def from_ends(events: list[TraceEvent], name: str) -> list[TraceEvent]:
    """Return the reports of packets between the two hosts: no multicast of IPv6."""
    ends = set(ADDRESSES[6 if "6" in name else 4])
    return [comparable(event) for event in events if event.packet and event.packet.src in ends]


@pytest.mark.parametrize("name", REPORTS)
def test_the_log_says_what_nflog_says_of_the_same_packets(name: str) -> None:
    messages = read_recording(name).messages
    nflog = [event for each in messages for event in decode_datagram(each.data, 0.0)]
    wanted = [event for event in nflog if isinstance(event, TraceEvent)]
    assert from_ends(reports(name), name) == from_ends(wanted, name)


@pytest.mark.parametrize("name", REPORTS)
def test_every_recorded_line_is_a_report_with_a_hook(name: str) -> None:
    events = reports(name)
    assert len(events) == len(list(records(name)))
    assert {type(event.hook) for event in events} == {Hook}


@pytest.mark.parametrize("name", REPORTS)
def test_every_recorded_report_has_its_place_in_the_rules(name: str) -> None:
    ruleset = read_recording(name).ruleset
    assert [event for event in reports(name) if ruleset.locate(event) is None] == []


def test_lines_of_log_rules_count_as_reports_only_if_they_look_like_one() -> None:
    points = {(event.table, event.chain, event.number) for event in reports("foreign4")}
    assert ("nowhere", "X", 9) in points  # for the ruleset to refuse
    assert {table for table, *_ in points} == {"nowhere", "raw", "filter"}


# -- what a line says


def test_a_report_says_place_interfaces_mark_and_packet() -> None:
    assert only(f"TRACE: mangle:PREROUTING:rule:3 {CAME_IN}{TCP}MARK=0xff ") == TraceEvent(
        time=1.0,
        backend=only(f"TRACE: raw:PREROUTING:rule:1 {CAME_IN}{TCP}").backend,
        table_family=TableFamily.IP,
        table="mangle",
        chain="PREROUTING",
        kind=TraceKind.RULE,
        number=3,
        hook=Hook.PREROUTING,
        packet=PacketSummary(
            PacketFamily.IPV4,
            "tcp",
            "198.51.100.2",
            "198.51.100.1",
            40000,
            80,
            ip_id=7,
            length=60,
            ttl=64,
            tcp_flags=("SYN",),
            tcp_seq=1000,
            tcp_ack=0,
        ),
        mark=0xFF,
        in_index=2,
    )


@pytest.mark.parametrize(
    ("words", "indexes"),
    [
        (f"IN=s0 OUT=lo PHYSIN=p1 PHYSOUT=p2 {MAC}", (2, 1)),
        (f"IN=s0 OUT=lo {MACS}MACPROTO=0800 ", (2, 1)),
        (f"IN=s0 OUT=lo {MACS}VPROTO=8100 VID=5 MACPROTO=0800 ", (2, 1)),
        ("IN=s0 OUT=lo MAC= TUNNEL=192.0.2.1->192.0.2.2 ", (2, 1)),
    ],
)
def test_what_stands_between_interfaces_and_packet_is_passed_over(
    words: str, indexes: tuple[int, int]
) -> None:
    event = only(f"TRACE: filter:FORWARD:policy:1 {words}{UDP}")
    assert (event.in_index, event.out_index) == indexes
    assert event.packet == packet_of(UDP)


def test_a_bridges_ports_stand_beside_the_bridge() -> None:
    event = only(f"TRACE: filter:FORWARD:policy:1 IN=s0 OUT=s0 PHYSIN=lo PHYSOUT=s0 {MAC}{UDP}")
    assert (event.physical_in, event.physical_out) == (1, 2)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("RES=0x00 ", ()),
        ("RES=0x00 ACK RST ", ("RST", "ACK")),
        ("RES=0x00 CWR ECE URG ACK PSH RST SYN FIN ", TCP_FLAG_WORDS),
        ("RES=0x00 AE SYN ", ("SYN",)),
    ],
)
def test_flags_are_in_wire_order(text: str, flags: tuple[str, ...]) -> None:
    assert packet_of(TCP.replace("RES=0x00 SYN ", text)).tcp_flags == flags


@pytest.mark.parametrize("options", ["OPT (020405B40402080A) ", "OPT (TRUNCATED)", ""])
def test_options_hide_no_mark(options: str) -> None:
    event = only(f"TRACE: raw:PREROUTING:policy:2 {CAME_IN}{TCP}{options} UID=0 GID=7 MARK=0x1 ")
    assert event.mark == 1


@pytest.mark.parametrize(
    ("word", "protocol"),
    [("47", "47"), ("132", "sctp"), ("AH SPI=0x7", "51"), ("ESP SPI=0x7", "50")],
)
def test_other_protocols_have_no_ports(word: str, protocol: str) -> None:
    packet = packet_of(UDP.partition("PROTO")[0] + f"PROTO={word} ")
    assert (packet.protocol, packet.sport, packet.dport) == (protocol, None, None)


def test_udp_lite_has_ports() -> None:
    packet = packet_of(UDP.replace("PROTO=UDP", "PROTO=UDPLITE"))
    assert (packet.protocol, packet.sport, packet.dport) == ("136", 40001, 9)


def test_an_ipv6_packet_that_ends_in_esp_is_esp() -> None:
    packet = packet_of(
        "SRC=2001:0db8:0000:0000:0000:0000:0000:0002 DST=2001:0db8:0000:0000:0000:0000:0000:0001 "
        "LEN=60 TC=0 HOPLIMIT=64 FLOWLBL=0 OPT ( ) OPT ( ESP SPI=0x9 )"
    )
    assert (packet.protocol, packet.src) == ("50", "2001:db8::2")


@pytest.mark.parametrize(
    ("words", "icmp"),
    [
        ("PROTO=ICMP TYPE=8 CODE=0 ID=77 SEQ=3 ", IcmpHeader(8, 0, 77, 3)),
        ("PROTO=ICMP TYPE=13 CODE=0 ", IcmpHeader(13, 0)),
        ("PROTO=ICMP TYPE=8 CODE=0 INCOMPLETE [2 bytes] ", IcmpHeader(8, 0)),
        ("PROTO=ICMP INCOMPLETE [1 bytes] ", None),
    ],
)
def test_icmp_shows_id_and_sequence_of_echoes(words: str, icmp: IcmpHeader | None) -> None:
    assert packet_of(UDP.partition("PROTO")[0] + words).icmp == icmp


@pytest.mark.parametrize("before", ["TYPE=3 CODE=4 ", "TYPE=5 CODE=1 GATEWAY=198.51.100.9 "])
def test_an_error_quotes_a_packet(before: str) -> None:
    quoted = packet_of(f"{UDP.partition('PROTO')[0]}PROTO=ICMP {before}[{TCP}] MTU=1280 ").quoted
    assert quoted == packet_of(TCP)


@pytest.mark.parametrize(
    "inner",
    ["TRUNCATED", "SRC=", TCP.partition("SPT")[0] + "INCOMPLETE [8 bytes] "],
)
def test_a_packet_that_is_quoted_in_part_is_none(inner: str) -> None:
    error = f"{UDP.partition('PROTO')[0]}PROTO=ICMP TYPE=3 CODE=1 [{inner}] "
    assert packet_of(error).quoted is None


# -- hooks


def test_a_user_chain_is_at_the_hook_from_which_the_packet_jumped() -> None:
    """The chain is called from two hooks, for packets with the same interfaces."""

    def say(point: str, text: str = UDP) -> bytes:
        return line(f"TRACE: mangle:{point} {CAME_IN}{text}")

    other = UDP.replace("ID=4242", "ID=5")
    events = decoded(
        say("PREROUTING:rule:1"),
        say("INPUT:rule:1", other),
        say("U:rule:1", other),
        say("U:rule:1"),
        say("INPUT:rule:1"),
        say("U:rule:1"),
    )
    hooks = [event.hook for event in events if isinstance(event, TraceEvent) and event.chain == "U"]
    assert hooks == [Hook.INPUT, Hook.PREROUTING, Hook.INPUT]


@pytest.mark.parametrize(
    ("table", "interfaces", "hook"),
    [
        ("raw", "IN=s0 OUT= ", Hook.PREROUTING),
        ("raw", "IN= OUT=s0 ", Hook.OUTPUT),
        ("filter", "IN=s0 OUT= ", Hook.INPUT),
        ("filter", "IN=lo OUT=s0 ", Hook.FORWARD),
        ("security", "IN= OUT=s0 ", Hook.OUTPUT),
        ("nat", "IN=lo OUT=s0 ", Hook.POSTROUTING),
        ("mangle", "IN=s0 OUT= ", None),
        ("nat", "IN= OUT=s0 ", None),
    ],
)
def test_a_user_chain_without_a_jump_is_where_the_table_and_interfaces_agree(
    table: str, interfaces: str, hook: Hook | None
) -> None:
    assert only(f"TRACE: {table}:U:rule:1 {interfaces}{UDP}").hook is hook


def test_a_chain_named_like_another_tables_base_chain_is_a_user_chain() -> None:
    assert only(f"TRACE: raw:INPUT:rule:1 {CAME_IN}{UDP}").hook is Hook.PREROUTING


def test_only_so_many_packets_are_remembered() -> None:
    log = KernelLog()

    def feed(chain: str, number: int) -> TraceEvent:
        text = UDP.replace("ID=4242", f"ID={number}")
        record = line(f"TRACE: mangle:{chain}:rule:1 {CAME_IN}{text}")
        (event,) = log.decode(record, 1.0, INTERFACES)
        assert isinstance(event, TraceEvent)
        return event

    for number in range(REMEMBERED + 1):
        feed("INPUT", number)
    assert feed("U", 0).hook is None
    assert feed("U", 1).hook is Hook.INPUT


# -- hostile and foreign lines


@pytest.mark.parametrize(
    "chain",
    ["a b", "a:rule:1", "a:rule:1 IN= OUT=", "x SRC=1.2.3.4", ":policy:2", "\\x0a", "TRACE: raw:"],
)
def test_a_chain_has_any_name(chain: str) -> None:
    event = only(f"TRACE: filter:{chain}:rule:1 {CAME_IN}{UDP}")
    assert event.chain == chain.replace("\\x0a", "\n")
    assert event.packet == packet_of(UDP)


def test_bytes_that_are_no_text_come_back() -> None:
    event = only(rf"TRACE: filter:\xff\x5cx41\xc3\xa4:rule:1 {CAME_IN}{UDP}")
    assert event.chain == "\udcff\\x41ä"


def test_an_interface_has_any_name() -> None:
    interfaces = {"SRC=1.2.3.4": 7, "MAC=": 8}
    record = line(f"TRACE: filter:FORWARD:rule:1 IN=SRC=1.2.3.4 OUT=MAC= {MAC}{UDP}")
    (event,) = KernelLog().decode(record, 1.0, interfaces)
    assert isinstance(event, TraceEvent)
    assert (event.in_index, event.out_index) == (7, 8)


@pytest.mark.parametrize(
    "text",
    [
        "device s0 entered promiscuous mode",
        f"userlog {CAME_IN}{UDP}",
        f"TRACE: filter:INPUT:rule:1{CAME_IN}{UDP}",
        f"TRACE: filter:INPUT:rules:1 {CAME_IN}{UDP}",
        f"TRACE: filter:INPUT:rule:1 IN=eth9 OUT= {UDP}",
        f"TRACE: filter:INPUT:rule:1 IN= OUT=s0 {UDP}",
        f"TRACE: filter:FORWARD:rule:1 IN=s0 OUT= {UDP}",
        f"TRACE: filter:INPUT:rule:1 {CAME_IN}{TCP.replace('SEQ=1000 ACK=0 ', '')}",
    ],
)
def test_what_no_table_of_this_namespace_can_have_said_is_no_report(text: str) -> None:
    assert decoded(line(text)) == []


def test_what_a_program_wrote_is_no_report() -> None:
    assert decoded(line(f"TRACE: filter:INPUT:rule:1 {CAME_IN}{UDP}", level=12)) == []


def test_a_report_of_no_known_form_is_counted() -> None:
    text = f"TRACE: filter:INPUT:rule:1 {CAME_IN}ARP HTYPE=1"
    assert decode_line(text, 1.0, INTERFACES) == Undecoded(
        1.0, "a logged packet without a network header", text.encode()
    )


@pytest.mark.parametrize("data", [b"x", b"4,1", b"4,x,1,-;text", b"-1,2,3,-;"])
def test_bytes_that_are_no_record_are_counted(data: bytes) -> None:
    (event,) = decoded(data)
    assert event == Undecoded(1.0, "a record that the kernel log does not have", data)


def test_what_follows_the_text_is_no_part_of_it() -> None:
    record = line(f"TRACE: filter:INPUT:rule:1 {CAME_IN}{UDP}") + b" SUBSYSTEM=net\n MARK=0x1\n"
    (event,) = decoded(record)
    assert isinstance(event, TraceEvent)
    assert event.mark == 0


# -- losses


def test_a_gap_in_the_records_is_a_loss() -> None:
    assert decoded(line("a", sequence=7), line("b", sequence=8), line("c", sequence=12)) == [
        Lost(1.0, 3, "the kernel log was overwritten before it was read")
    ]


def test_an_overwritten_log_is_counted_once() -> None:
    (lost,) = decoded(line("a", sequence=7), OVERWRITTEN, line("b", sequence=90))
    assert isinstance(lost, Lost)
    assert lost.count == 82


def test_a_log_that_is_overwritten_before_its_first_record_lost_some() -> None:
    (lost,) = decoded(OVERWRITTEN, line("a", sequence=90))
    assert isinstance(lost, Lost)
    assert lost.count is None
