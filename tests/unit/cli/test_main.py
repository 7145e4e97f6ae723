"""What the command line says before any command runs."""

from __future__ import annotations

import pytest

from ipttrace.cli.main import SUBCOMMANDS, main


def test_no_command_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(f"    {each.__name__.rpartition('.')[2]} " in shown.err for each in SUBCOMMANDS)


@pytest.mark.parametrize(
    ("word", "meant"),
    [("prob", "Did you mean 'ipttrace probe'? "), ("xyz", ""), ("\x1b[31m", "")],
)
def test_a_command_that_is_not_there(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "tcp"]) == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.endswith(
        f"'. {meant}There are probe, watch, rules, lab, check, tui, doctor, clean.\n"
    )
