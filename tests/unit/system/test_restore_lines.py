"""Calls of iptables as one text, and the way back from a line to its table and its rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipttrace.system.lab_rules import tidy
from ipttrace.system.restore_lines import in_one_text, quoted, section_around, split_table

CALLS = [
    ("-A", "INPUT", "-j", "DROP"),
    ("-t", "nat", "-A", "PREROUTING", "-j", "ACCEPT"),
    ("--table=filter", "-A", "INPUT", "-m", "comment", "--comment", 'two "words" \\'),
]


def test_each_table_gets_its_calls_in_their_order() -> None:
    whole = in_one_text(CALLS)
    assert whole is not None
    assert whole.text.splitlines() == [
        "*filter",
        "-A INPUT -j DROP",
        r'-A INPUT -m comment --comment "two \"words\" \\"',
        "COMMIT",
        "*nat",
        "-A PREROUTING -j ACCEPT",
        "COMMIT",
    ]
    assert whole.items == {2: 0, 3: 2, 6: 1}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("-v", "-A", "INPUT"),
        ("-L",),
        ("-A", ""),
        ("-A", "x" * 1001),
        ("-A", *["x" * 900] * 10),
    ],
)
def test_what_no_text_can_say(words: tuple[str, ...]) -> None:
    assert in_one_text([CALLS[0], words]) is None


def test_no_calls_are_no_text() -> None:
    whole = in_one_text([])
    assert whole is not None
    assert whole.text == ""


def test_tables_of_calls() -> None:
    assert split_table(("-A", "INPUT")) == ("filter", ["-A", "INPUT"])
    assert split_table(("-A", "X", "--table", "raw")) == ("raw", ["-A", "X"])
    assert split_table(("-t",)) == ("", [])


TEXT = """\
# by hand
*filter
:INPUT DROP [0:0]
:mine - [0:0]
[1:2] -A INPUT -m comment --comment "a b" -j mine
-A mine -j DROP
COMMIT
*nat
-A PREROUTING -j ACCEPT
"""


def test_a_row_and_its_table() -> None:
    section = section_around(TEXT, 7)
    assert section is not None
    assert (section.table, section.first, section.commit) == ("filter", 2, 7)
    assert section.rows == [5, 6]
    assert section.rule_in(5) == ("-A", "INPUT", "-m", "comment", "--comment", "a b", "-j", "mine")
    assert section.rule_in(3) is None
    assert section.text([6]).splitlines() == [
        "*filter",
        ":INPUT DROP [0:0]",
        ":mine - [0:0]",
        "-A mine -j DROP",
        "COMMIT",
    ]


@pytest.mark.parametrize("row", [0, 1, 9, 10, 99])
def test_rows_of_no_whole_table(row: int) -> None:
    assert section_around(TEXT, row) is None


@given(st.text(max_size=200), st.integers(-1, 20))
def test_any_text_and_row(text: str, row: int) -> None:
    section = section_around(text, row)
    if section is not None:
        for each in section.rows:
            section.rule_in(each)


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_quoted_words_are_read_back(word: str) -> None:
    r"""As add_param_to_argv of iptables-restore reads them: only " and \\ mean something."""
    text = quoted(word)
    if text.startswith('"'):
        read, pending = "", iter(text[1:-1])
        for char in pending:
            read += next(pending) if char == "\\" else char
        text = read
    assert text == word


def test_complaints_are_made_readable() -> None:
    said = (
        'iptables v1.8.9 (legacy):; The "nat" table is not intended for filtering.; '
        "Error occurred at line: 2; Try `iptables -h' or 'iptables --help' for more information."
    )
    assert tidy(said) == 'iptables v1.8.9 (legacy): The "nat" table is not intended for filtering.'
