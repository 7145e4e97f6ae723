"""SVG pictures of the screen, kept under review in tests/tui/snapshots."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widgets import Input

from ipttrace_tui.app import IptTraceApp
from tests.tui.svg import normal_svg

SNAPSHOTS = Path(__file__).parent / "snapshots"
UPDATE = "IPTTRACE_UPDATE_SNAPSHOTS"

Check = Callable[[IptTraceApp, str], None]


@pytest.fixture(autouse=True)
def steady_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no cursor blink: half of the pictures would be without it."""
    monkeypatch.setattr(Input.cursor_blink, "_default", False)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own: no test reads or writes the user's files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def same_picture() -> Check:
    """Compare the screen with its reviewed picture; with IPTTRACE_UPDATE_SNAPSHOTS=1 write it."""

    def check(app: IptTraceApp, name: str) -> None:
        file = SNAPSHOTS / f"{name}.svg"
        picture = normal_svg(app.export_screenshot(simplify=True))
        if os.environ.get(UPDATE) == "1":
            file.parent.mkdir(exist_ok=True)
            file.write_text(picture, encoding="utf-8")
        assert file.exists(), f"no picture {file.name}: look at it after {UPDATE}=1"
        seen = file.with_suffix(".seen.svg")
        if picture != file.read_text(encoding="utf-8"):
            seen.write_text(picture, encoding="utf-8")
            pytest.fail(f"{seen.name} differs from {file.name}: look at both, then {UPDATE}=1")
        seen.unlink(missing_ok=True)

    return check
