from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.render.table import Row, columns, cut, cut_rule, pad, table_lines, wrap

RULE = "-d 198.51.100.1/32 -p tcp -m tcp --dport 8445 -j REDIRECT --to-ports 8443"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (80, RULE),
        (65, "-d 198.51.100.1 -p tcp --dport 8445 -j REDIRECT --to-ports 8443"),
        (60, "-d 198.51.100.1 -p tcp --dport 8445 -j REDIRECT …"),
        (40, "… -p tcp --dport 8445 -j REDIRECT …"),
        (31, "… --dport 8445 -j REDIRECT …"),
        (10, "-d 198.51…"),
    ],
)
def test_a_rule_loses_noise_first_and_its_target_last(width: int, expected: str) -> None:
    assert cut_rule(RULE, width) == expected


def test_a_negation_stays_with_its_option() -> None:
    assert cut_rule("-i eth0 ! --dport 80 -j ACCEPT", 26) == "… ! --dport 80 -j ACCEPT"
    assert cut_rule("-i eth0 ! --dport 80 -j ACCEPT", 22) == "-i eth0 ! -… -j ACCEPT"


def test_only_masks_that_say_nothing_are_left_out() -> None:
    text = "-s 10.0.0.0/8 -d 10.0.0.1/32 -m mark --mark 0x1/0xff -j MARK --set-xmark 0x1/0xffffffff"
    assert cut_rule(text, len(text) - 1) == (
        "-s 10.0.0.0/8 -d 10.0.0.1 -m mark --mark 0x1/0xff -j MARK --set-xmark 0x1"
    )


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("한국", 4), ("e\u0301", 1), ("", 0)])
def test_columns_of_a_terminal(text: str, width: int) -> None:
    assert columns(text) == width
    assert columns(pad(text, 9)) == 9


def test_wide_letters_are_cut_by_cells() -> None:
    assert cut("한국어", 5) == "한국…"
    assert cut("한국어", 4) == "한…"
    assert cut("한국어", 6) == "한국어"


def test_words_are_never_cut_when_wrapped() -> None:
    lines = wrap("to [2001:db8:1:2:3:4:5:6]:40000 -> here", 20)
    assert lines == ["  to", "    [2001:db8:1:2:3:4:5:6]:40000", "    -> here"]


def test_no_rows_no_lines() -> None:
    assert table_lines([], width=80, color=False) == []


words = st.text("ab -j/0x1한", max_size=60)
rows = st.builds(
    Row,
    lead=st.tuples(words, words),
    rule=words,
    effect=st.lists(st.sampled_from(["DROP", "mark 0 -> 1", "x" * 70]), max_size=2).map(tuple),
    counter=st.sampled_from(["", "+1", "+12345"]),
)


@given(st.lists(rows, max_size=5), st.integers(20, 200))
def test_effects_and_counters_are_never_cut(made: list[Row], width: int) -> None:
    text = "\n".join(table_lines(made, width=width, color=False))
    for row in made:
        assert all(part in text for part in row.effect)
        assert row.counter in text


@given(words, st.integers(1, 100))
def test_a_cut_rule_fits(text: str, width: int) -> None:
    assert columns(cut_rule(text, width)) <= width
