"""The tree as a whole: layers, wheel, README, help texts, lazy imports, docstrings."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from inline_snapshot import external_file

from ipttrace import __version__
from ipttrace.cli.main import build_parser

TREE = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((TREE / "pyproject.toml").read_text())
PACKAGES = (TREE / "ipttrace", TREE / "tui" / "ipttrace_tui")
HEAVY = {"scapy", "pyroute2", "iptc", "textual", "msgspec", "yaml", "rich"}
SUBCOMMANDS = ("probe", "watch", "rules", "lab", "check", "tui", "doctor", "clean")
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
LAB = ("list", "show", "run", "up", "down", "shell", "snapshot", "twin")
HELP = ["", *SUBCOMMANDS, *(f"lab {command}" for command in LAB)]


def sources(*roots: Path) -> list[Path]:
    """Return the Python files below `roots`."""
    return sorted(path for root in roots for path in root.rglob("*.py"))


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program at the top of the tree; its output is text, its exit status the caller's."""
    return subprocess.run(
        command,
        cwd=TREE,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


# ---------------------------------------------------------------- layers


def test_import_contracts_are_kept() -> None:
    done = run(Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_its_layer() -> None:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = set(re.findall(r"ipttrace\.(\w+)", " ".join(layers)))
    there = {path.stem for path in (TREE / "ipttrace").iterdir() if is_module(path)}
    assert there - {"__init__"} <= named


def is_module(path: Path) -> bool:
    """Tell whether `path` is a module or a package."""
    return path.suffix == ".py" or (path / "__init__.py").exists()


# ---------------------------------------------------------------- wheel


def test_wheel_holds_the_two_packages_and_nothing_else(tmp_path: Path) -> None:
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    info = f"ipttrace_live-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"ipttrace", "ipttrace_tui", info}
    assert "ipttrace/py.typed" in names
    assert "ipttrace/render/ipttrace-1.schema.json" in names
    assert "ipttrace/lab/library/article-complete.yaml" in names


def test_version_is_said_once() -> None:
    assert PROJECT["project"]["version"] == __version__
    assert f"## [{__version__}]" in (TREE / "CHANGELOG.md").read_text()


# ---------------------------------------------------------------- command line


@pytest.mark.parametrize("command", HELP)
def test_help_is_as_reviewed(command: str) -> None:
    program = Path(sys.executable).with_name("ipttrace")
    done = run(program, *command.split(), "--help", COLUMNS="100", NO_COLOR="1")
    assert done.returncode == 0, done.stderr
    name = f"help/ipttrace {command}".rstrip().replace(" ", "-")
    assert done.stdout == external_file(f"data/{name}.txt")


def test_help_loads_no_heavy_library() -> None:
    program = """
import sys
from ipttrace.cli.main import main
try:
    main(["--help"])
except SystemExit:
    print(*{name.split(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    done = run(sys.executable, "-c", program)
    assert "probe" in done.stdout
    assert set(done.stderr.split()) & HEAVY == set()


# ---------------------------------------------------------------- README


def readme_commands() -> list[list[str]]:
    """Return the commands of README's fenced blocks, split into words, without `sudo`.

    In `sh` blocks every line is one, in `console` blocks those after `$ `.
    """
    text = (TREE / "README.md").read_text()
    commands = []
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines = body.splitlines()
        if language == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        elif language != "sh":
            continue
        words = [shlex.split(line, comments=True) for line in lines]
        commands += [line[line[0] == "sudo" :] for line in words if line]
    return commands


def test_readme_shows_every_subcommand() -> None:
    shown = {words[1] for words in readme_commands() if Path(words[0]).name == "ipttrace"}
    assert shown >= set(SUBCOMMANDS)


@pytest.mark.parametrize("words", readme_commands(), ids=" ".join)
def test_readme_command_is_real(words: list[str]) -> None:
    program = Path(words[0])
    if program.name == "ipttrace":
        build_parser().parse_args(words[1:])
    else:
        assert program.parent == Path("scripts"), f"README shows a command of nobody: {program}"
        usage = run(TREE / program, "--help").stdout
        assert usage.startswith("usage:")
        assert all(word in usage for word in words[1:])


# ---------------------------------------------------------------- source


def test_nobody_sleeps() -> None:
    files = sources(*PACKAGES, TREE / "tests")
    asleep = [path for path in files if sleeps(ast.parse(path.read_text()))]
    assert asleep == []


def sleeps(module: ast.Module) -> bool:
    """Tell whether `time.sleep` is called or imported."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "time.sleep":
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            return any(alias.name == "sleep" for alias in node.names)
    return False


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("import time\ntime.sleep(1)", True),
        ("from time import sleep", True),
        ("import time\ntime.time()", False),
    ],
)
def test_sleep_is_found(program: str, found: bool) -> None:
    assert sleeps(ast.parse(program)) is found


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=lambda path: str(path.relative_to(TREE)))
def test_public_names_have_docstrings(path: Path) -> None:
    assert list(undocumented(ast.parse(path.read_text()))) == []


def undocumented(scope: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Yield the public names of a module or class that say nothing of themselves."""
    if ast.get_docstring(scope) is None:
        yield getattr(scope, "name", "module")
    for node in scope.body:
        if getattr(node, "name", "_").startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node)
        elif isinstance(node, FUNCTION) and ast.get_docstring(node) is None:
            yield node.name


def test_a_missing_docstring_is_found() -> None:
    program = 'def f(): pass\nclass C:\n    "."\n    def m(self): "."\n    def n(self): pass\n'
    assert list(undocumented(ast.parse(program))) == ["module", "f", "n"]
