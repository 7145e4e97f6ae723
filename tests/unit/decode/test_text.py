"""No text acts on the terminal that shows it."""

from __future__ import annotations

import pytest

from ipttrace.decode.text import clean_text


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\r\t", r"two\x0alines\x0d\x09"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("abc\u202edef\u2066", r"abc\u202edef\u2066"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("\u2028\u2029\u00a0", r"\u2028\u2029\xa0"),
        (b"\xff\xfe".decode("utf-8", "surrogateescape"), r"\xff\xfe"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("\u0378", r"\u0378"),
    ],
)
def test_what_acts_is_written_out(hostile: str, harmless: str) -> None:
    assert clean_text(hostile) == harmless


@pytest.mark.parametrize("text", ["", "-A INPUT -j DROP", r"a \"b\" \\", "Grüße 検査 مرحبا é"])
def test_what_can_be_read_stays(text: str) -> None:
    assert clean_text(text) == text
