from __future__ import annotations

import io
import sys

import pytest

from ipttrace.cli import output
from ipttrace.errors import NotPermittedError


@pytest.mark.parametrize(
    ("environment", "terminal", "wanted"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    environment: dict[str, str], terminal: bool, wanted: bool
) -> None:
    assert output.wants_color(environment, terminal=terminal) is wanted


def test_a_pipe_has_no_width_and_no_colour(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.width() is None
    assert not output.color()


def test_errors_go_to_stderr_on_one_clean_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.error(NotPermittedError("cannot open \x1b[31mx: no", "Run as root."))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ipttrace: cannot open \\x1b[31mx: no. Run as root.\n"


def test_records_are_utf8_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.record('{"a":"한"}'.encode())
    output.lines(["한 …"])
    assert raw.getvalue() == '{"a":"한"}\n'.encode() + b"? ?\n"
