"""Files of every kind, made from runs with hostile texts in them."""

from __future__ import annotations

import json
import re
import struct
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from ipttrace.errors import UsageError
from ipttrace.path import (
    Change,
    Diagnosis,
    Evidence,
    Outcome,
    PacketPath,
    Role,
    Strength,
    Unmatched,
)
from ipttrace.render.exports import KINDS, About, export, suffix_of
from ipttrace.render.report_style import PAGE_STYLE
from ipttrace.render.svg import DARK, LIGHT
from ipttrace.render.text import answer_lines, note_lines
from ipttrace.result import TraceResult
from tests import builders as b

ABOUT = About(datetime(2026, 11, 27, 3, 0, tzinfo=UTC), "ipttrace 0.1.0", "ipttrace probe <tcp>")
EVIL = (
    "<script>alert(1)</script> ]]> --> </style> \x1b[31m\x07 \u202e [bold]x[/] \"'& \udcff\0\ufffe"
)
DROP = f'-m comment --comment "{EVIL}" -j DROP'
HOSTILE = Diagnosis(
    "mark-drop",
    EVIL,
    (),
    (Evidence(EVIL, Strength.REPORTED),),
    (Unmatched(b.rule(b.chain_ref(), "", 1).ref, EVIL, EVIL),),
    (EVIL,),
)


def hostile() -> TraceResult:
    """Return a run in which every text from outside is hostile."""
    path = b.path(
        b.rule_hop("mangle", "PREROUTING", 1, "-j MARK --set-mark 1", Change("mark", 0, 1)),
        b.rule_hop("filter", "INPUT", 1, DROP),
        outcome=Outcome.DROPPED,
        netns=EVIL,
        in_interface=EVIL,
        diagnosis=HOSTILE,
    )
    seen = replace(path, id=2, role=Role.OBSERVED)
    return b.result(path, seen, client=["TIMEOUT"], warnings=(EVIL,))


def made(suffix: str, result: TraceResult) -> bytes:
    return export(suffix, result, ABOUT)


# ------------------------------------------------------------------ all kinds


@pytest.mark.parametrize("suffix", KINDS)
def test_nothing_that_a_terminal_acts_on_is_in_a_text_file(suffix: str) -> None:
    if suffix == ".pcapng":
        texts = [text for block in blocks(made(suffix, hostile())) for text in block.comments]
    else:
        texts = [made(suffix, hostile()).decode()]
    assert texts
    if suffix == ".jsonl":  # for programs: JSON itself writes out what is below a space
        texts = [text.replace("\u202e", "").replace("\ufffe", "") for text in texts]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", "".join(texts))


@pytest.mark.parametrize("suffix", KINDS)
def test_a_run_without_packets_can_be_written(suffix: str) -> None:
    assert made(suffix, b.result())


@pytest.mark.parametrize("name", ["trace", "trace.pcap", "/tmp/x.d/trace", ".svg", ""])
def test_an_unknown_ending_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot tell what to write to .*\.pcapng"):
        suffix_of(name)


def test_the_ending_may_be_in_capitals() -> None:
    assert suffix_of("a.b/REPORT.HTML") == ".html"


def test_text_is_what_a_probe_prints_without_colour() -> None:
    result = hostile()
    lines = answer_lines(result, width=None, color=False)
    lines += note_lines(result, width=None, color=False)
    assert made(".txt", result).decode() == "".join(f"{line}\n" for line in lines)


def test_json_lines_are_the_records() -> None:
    records = [json.loads(line) for line in made(".jsonl", hostile()).splitlines()]
    assert [record["record"] for record in records] == ["path", "path", "summary"]


# ------------------------------------------------------------------ SVG and HTML


def test_a_picture_holds_the_map_and_the_fate() -> None:
    root = ET.fromstring(made(".svg", b.result(b.mark_drop_path(diagnosis=HOSTILE))))
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"raw", "filter 1 ✗", "mark 0→1", "PREROUTING"} <= set(texts)
    assert any(text.startswith("x <script>alert(1)</script>") for text in texts)
    assert texts[-1] == "ipttrace probe <tcp>   2026-11-27 03:00:00 +0000   ipttrace 0.1.0"
    size = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == "0 0 {:g} {:g}".format(*size)


def test_a_picture_marks_the_hop_that_is_looked_at() -> None:
    run = b.result(b.mark_drop_path())
    assert b'class="s-selected double"' in export(".svg", run, replace(ABOUT, hop=1))
    assert b'double"' not in made(".svg", run)


def test_nothing_in_a_picture_is_outside_of_it() -> None:
    root = ET.fromstring(made(".svg", hostile()))
    width = float(root.attrib["width"])
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        assert float(text.attrib["x"]) + float(text.attrib["textLength"]) <= width


class Reader(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


KNOWN_TAGS = (
    "html head meta title style body header h1 h2 h3 p aside ul li main section nav a span div svg"
    " path text dl dt dd code table thead tbody tr th td footer"
)


def test_a_report_runs_and_fetches_nothing() -> None:
    page = made(".html", hostile()).decode()
    reader = Reader(page)
    assert reader.open == []
    assert set(reader.tags) <= set(KNOWN_TAGS.split())
    names = {name for name, _ in reader.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {
        "src",
        "action",
        "style",
    }
    links = [value for name, value in reader.attributes if name == "href"]
    assert all(link and link.startswith("#packet-") for link in links)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_a_report_says_it_all() -> None:
    page = made(".html", hostile()).decode()
    for word in ("2026-11-27 03:00:00 +0000", "ipttrace 0.1.0", "ipttrace probe &lt;tcp&gt;"):
        assert word in page
    for word in ("evidence", "not matched", "What could be done", "Hops", "To be kept in mind"):
        assert word in page
    assert "got no answer (timeout)" in page
    assert page.count("&lt;script&gt;alert(1)") > 8
    assert "Also seen" in page


def test_a_report_of_very_many_packets_says_what_it_leaves_out() -> None:
    paths = [b.path(number=n, role=Role.OBSERVED, journey=n) for n in range(1, 251)]
    page = made(".html", b.result(*paths)).decode()
    assert page.count("<section") == 200
    assert "50 packets more are not shown here" in page
    assert "50 packets more are not shown" in made(".svg", b.result(*paths)).decode()


def luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.1)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def palettes() -> Iterator[dict[str, str]]:
    yield from (LIGHT, DARK)
    for root in re.findall(r":root\{([^}]*)\}", PAGE_STYLE):
        yield {k: v for k, v in re.findall(r"--(\w+):(#\w{6})", root) if k != "line"}


@pytest.mark.parametrize("palette", list(palettes()))
def test_every_colour_can_be_read(palette: dict[str, str]) -> None:
    page = luminance(palette["page"])
    for name, colour in palette.items():
        light, dark = sorted((luminance(colour), page), reverse=True)
        assert name == "page" or (light + 0.05) / (dark + 0.05) >= 4.5, name


# ------------------------------------------------------------------ pcapng


class Block:
    """One block of a pcapng file, read apart from the code that writes it."""

    def __init__(self, kind: int, body: bytes) -> None:
        self.kind = kind
        fixed = {0x0A0D0D0A: 16, 1: 8, 6: 20}[kind]
        self.fixed = struct.unpack({16: "<IHHq", 8: "<HHI", 20: "<IIIII"}[fixed], body[:fixed])
        data = self.fixed[3] if kind == 6 else 0
        self.data = body[fixed : fixed + data]
        self.options = list(options(body[fixed + data + -data % 4 :]))

    @property
    def comments(self) -> list[str]:
        return [value.decode() for code, value in self.options if code == 1]


def options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while True:
        code, length = struct.unpack_from("<HH", data, at)
        if code == 0:
            assert at + 4 == len(data)
            return
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4


def blocks(data: bytes) -> list[Block]:
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        found.append(Block(kind, data[at + 8 : at + length - 4]))
        at += length
    return found


def two_places() -> tuple[PacketPath, PacketPath]:
    first = b.mark_drop_path(diagnosis=replace(HOSTILE, summary="dead"))
    second = replace(b.reply_path(), time=first.time - 1, netns=None)
    return first, second


def test_each_packet_is_there_once_with_a_comment_a_hop() -> None:
    first, second = two_places()
    section, *interfaces, early, late = blocks(made(".pcapng", b.result(first, second)))
    assert section.fixed == (0x1A2B3C4D, 1, 0, -1)
    assert (4, b"ipttrace 0.1.0") in section.options
    assert [dict(each.options)[2] for each in interfaces] == [b"eth0", b"server/eth0"]
    assert {each.fixed for each in interfaces} == {(12, 0, 262144)}
    assert (early.fixed[0], late.fixed[0]) == (0, 1)
    assert (late.fixed[1] << 32) + late.fixed[2] == round(first.time * 1e6)
    assert late.comments[1:7] == [
        "raw PREROUTING: policy ACCEPT",
        f"mangle PREROUTING 1: {b.MARK_RULE} | mark 0 -> 1 | +1",
        "mangle PREROUTING: policy ACCEPT",
        "nat PREROUTING: policy ACCEPT",
        "mangle INPUT: policy ACCEPT",
        f"filter INPUT 1: {b.DROP_MARKED} | DROP | +1",
    ]
    assert late.comments[7] == "x dead [mark-drop]"
    assert "rebuilt" in late.comments[-1]
    directions = [dict(each.options)[2] for each in (early, late)]
    assert directions == [b"\2\0\0\0", b"\1\0\0\0"]


def test_the_only_interface_has_the_link_type_for_files() -> None:
    _, interface, packet = blocks(made(".pcapng", b.result(b.mark_drop_path())))
    assert interface.fixed[0] == 101
    assert packet.data[0] >> 4 == 4


def test_warnings_are_comments_of_the_file() -> None:
    section = blocks(made(".pcapng", b.result(warnings=("reply not traced: x",))))[0]
    assert section.comments[0] == "ipttrace probe <tcp>, 2026-11-27 03:00:00 +0000"
    assert "! reply not traced: x" in section.comments


def test_a_very_long_text_is_cut_between_characters() -> None:
    run = b.result(warnings=("é" * 70000,))
    longest = max(blocks(made(".pcapng", run))[0].comments, key=len)
    assert len(longest.encode()) <= 8192
