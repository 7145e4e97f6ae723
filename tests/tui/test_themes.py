"""Every tone can be read on dark and on light themes."""

from __future__ import annotations

import pytest
from rich.style import Style
from textual.color import Color

from ipttrace.render.diagram import Look
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.flow_pane import FlowPane
from ipttrace_tui.widgets.toned import look, tone
from tests.tui.builders import ListFeed, article
from tests.tui.driving import Stage, play

READABLE = 4.5
"""Contrast of text, WCAG 2 level AA."""
VISIBLE = 2.5
"""Of what may stand back: the parts of the map that the packet did not meet."""


@pytest.mark.parametrize(
    "theme", ["textual-dark", "textual-light", "nord", "gruvbox", "atom-one-light"]
)
def test_tones_contrast_with_the_background(theme: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.app.theme = theme
        await stage.pilot.pause()
        pane = stage.widget(FlowPane)
        ground = pane.background_colors[1]
        ratios: dict[str, float] = {each: _contrast(tone(pane, each), ground) for each in Tone}
        ratios |= {f"look {each}": _contrast(look(pane, each), ground) for each in Look}
        dim = ratios.pop(f"look {Look.DIM}")
        assert dim >= VISIBLE
        assert {name: ratio for name, ratio in ratios.items() if ratio < READABLE} == {}

    play(ListFeed([article()]), act)


def test_picture_follows_the_theme() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        before = stage.app.export_screenshot()
        stage.app.theme = "textual-light"
        light = str(stage.widget(FlowPane).background_colors[1].hex.lower())
        await stage.until(lambda: light in stage.app.export_screenshot().lower(), "the light theme")
        assert stage.app.export_screenshot() != before

    play(ListFeed([article()]), act)


def _contrast(style: Style, ground: Color) -> float:
    assert style.color is not None
    front, back = _luminance(Color.from_rich_color(style.color)), _luminance(ground)
    return (max(front, back) + 0.05) / (min(front, back) + 0.05)


def _luminance(color: Color) -> float:
    """Return the relative luminance of WCAG 2."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in color.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
