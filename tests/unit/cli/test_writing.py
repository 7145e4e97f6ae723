"""The file that --write names, before anything is done."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ipttrace.cli import writing
from ipttrace.errors import UsageError
from tests import builders as b


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    writing.add_arguments(parser)
    args = parser.parse_args(words)
    args.words, args.verbose = ["probe", *words, "tcp", "198.51.100.1:81"], False
    return args


def test_without_it_nothing_is_written() -> None:
    file = writing.open_file(arguments())
    file.packet(b.path())
    file.finish(b.result())
    assert not file.failed


@pytest.mark.parametrize("words", [("--write", "{}"), ("--force", "--write={}")])
def test_the_file_is_named_after_the_command(tmp_path: Path, words: tuple[str, ...]) -> None:
    name = tmp_path / "a.html"
    file = writing.open_file(arguments(*(word.format(name) for word in words)))
    file.finish(b.result(b.path()))
    assert not file.failed
    assert "<h1>ipttrace probe tcp 198.51.100.1:81</h1>" in name.read_text()


def test_packets_that_were_taken_one_by_one_are_those_of_the_file(tmp_path: Path) -> None:
    name = tmp_path / "a.html"
    file = writing.open_file(arguments("--write", str(name)), stream=True)
    file.packet(b.path(number=7))
    file.finish(b.result())
    assert "#7 tcp" in name.read_text()


def test_json_lines_are_there_as_soon_as_they_are_known(tmp_path: Path) -> None:
    name = tmp_path / "a.jsonl"
    file = writing.open_file(arguments("--write", str(name)), stream=True)
    assert not name.exists()
    file.packet(b.path())
    assert name.read_text().count("\n") == 1
    file.finish(b.result())
    assert name.read_text().count("\n") == 2


def test_what_came_there_meanwhile_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (tmp_path / "a.txt", tmp_path / "a.jsonl"):
        file = writing.open_file(arguments("--write", str(name)), stream=True)
        name.write_text("precious")
        file.finish(b.result(b.path()))
        assert file.failed
        assert name.read_text() == "precious"
    assert capsys.readouterr().err.count("there is such a file already") == 2


def test_a_name_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    for name in ("a.pdf", "no/a.html"):
        with pytest.raises(UsageError):
            writing.open_file(arguments("--write", str(tmp_path / name)))
