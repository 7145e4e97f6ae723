"""Tracepoint events from pages that the kernel wrote, and from bytes that it never wrote."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ipttrace.decode.tracepoint import EventFormat, InOrder, decode_page, parse_format
from ipttrace.event import KernelEvent

RECORDED = json.loads(
    (Path(__file__).parents[2] / "data/tracepoints-6.18.json").read_text(encoding="utf-8")
)
PAGES = [(bytes.fromhex(page["hex"]), page["cpu"]) for page in RECORDED["pages"]]


def formats() -> dict[int, EventFormat]:
    found = [parse_format(text) for text in RECORDED["formats"].values()]
    return {each.id: each for each in found if each is not None}


FORMATS = formats()


def events() -> list[KernelEvent]:
    return [e for data, cpu in PAGES for e in decode_page(data, FORMATS, cpu, 1000.0).events]


def test_every_format_of_the_kernel_is_read() -> None:
    assert {each.name for each in FORMATS.values()} == {
        event.rpartition("/")[2] for event in RECORDED["formats"]
    }


def test_numbers_names_and_addresses_are_read() -> None:
    (data, cpu), *_ = PAGES
    page = decode_page(data, FORMATS, cpu)
    assert (page.missed, page.undecoded) == (False, 0)
    reset = next(event for event in page.events if event.name == "tcp_send_reset")
    assert reset.text("reason") == "NO_SOCKET"
    received = next(event for event in page.events if event.name == "netif_receive_skb")
    assert (received.text("name"), received.number("len")) == ("eth0", 60)
    error = next(event for event in page.events if event.name == "icmp_send")
    assert (error.number("type"), error.number("code")) == (3, 3)
    assert error.fields["daddr"] == bytes([198, 51, 100, 1])


def test_a_refused_packet_is_received_reset_and_freed_in_one_softirq() -> None:
    first = [event for event in events() if event.softirq][:3]
    names = [event.name for event in first]
    assert names[:2] == ["netif_receive_skb", "tcp_send_reset"]
    assert first[0].number("skbaddr") == first[1].number("skbaddr")
    drops = [event for event in events() if event.name == "kfree_skb"]
    assert {event.text("reason") for event in drops} == {"NO_SOCKET"}
    assert {event.number("protocol") for event in drops} == {0x0800}


def test_times_rise_and_begin_where_the_clock_does() -> None:
    times = [event.time for event in events()]
    assert times == sorted(times)
    (data, cpu), *_ = PAGES
    assert decode_page(data, FORMATS, cpu).events[0].time == times[0] - 1000.0


def test_an_overwritten_page_says_that_events_are_missing() -> None:
    data, cpu = PAGES[0]
    commit = int.from_bytes(data[8:16], "little") | 1 << 31
    assert decode_page(data[:8] + commit.to_bytes(8, "little") + data[16:], FORMATS, cpu).missed


def test_kinds_without_a_format_are_passed_over() -> None:
    data, cpu = PAGES[0]
    page = decode_page(data, {}, cpu)
    assert (page.events, page.undecoded) == ((), 0)


def test_what_is_no_format_is_none() -> None:
    assert parse_format("nothing of the kind") is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_page(data: bytes) -> None:
    page = decode_page(data, FORMATS, 0)
    assert page.undecoded >= 0


@given(st.integers(0, len(PAGES[0][0])))
def test_every_truncation_is_a_page_of_fewer_events(length: int) -> None:
    data, cpu = PAGES[0]
    whole, cut = decode_page(data, FORMATS, cpu), decode_page(data[:length], FORMATS, cpu)
    assert cut.events == whole.events[: len(cut.events)]
    assert cut.undecoded or length == len(data)


def test_what_the_first_processor_wrote_while_the_second_was_read_keeps_its_place() -> None:
    def event(time: float, cpu: int) -> KernelEvent:
        return KernelEvent(time, cpu, 0, softirq=False, name="sk_data_ready", fields={})

    early, late, meanwhile = event(1.0, 0), event(3.0, 1), event(2.5, 0)
    order = InOrder()
    assert order.take([early, late], begin=2.0) == [early]
    assert order.take([meanwhile], begin=4.0) == [meanwhile, late]
    assert order.take([], begin=5.0) == []
