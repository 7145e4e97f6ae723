"""Every colour can be read on every ground it stands on, in every theme of ours."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest
from rich.style import Style
from textual.color import Color

from ipttrace.render.diagram import Look
from ipttrace_tui.themes import DEFAULT, PALETTES, Palette, next_theme
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.flow_pane import FlowPane
from ipttrace_tui.widgets.hop_list import HopList
from ipttrace_tui.widgets.toned import look, tone
from tests.tui.builders import ListFeed, article
from tests.tui.driving import Stage, play

READABLE = 4.5
"""Contrast of text, WCAG 2 level AA (1.4.3)."""
VISIBLE = 3.0
"""Of lines and of what is no text (1.4.11)."""
TEXT = ("plain", "muted", "good", "bad", "warn", "changed", "title")
GROUNDS = ("background", "panel", "surface", "cursor", "blurred")


@pytest.mark.parametrize("name", PALETTES)
@pytest.mark.parametrize("role", TEXT)
def test_text_is_readable_on_every_ground(name: str, role: str) -> None:
    colors = asdict(PALETTES[name][0])
    ratios = {ground: contrast(colors[role], colors[ground]) for ground in GROUNDS}
    assert {ground: ratio for ground, ratio in ratios.items() if ratio < READABLE} == {}


@pytest.mark.parametrize("name", PALETTES)
def test_what_stands_back_is_readable_too(name: str) -> None:
    palette = PALETTES[name][0]
    for ground in (palette.background, palette.panel, palette.surface):
        assert contrast(palette.dim, ground) >= READABLE
    assert contrast(palette.frame, palette.background) >= VISIBLE


def test_good_and_bad_differ_for_every_eye_in_the_safe_theme() -> None:
    """Machado, Oliveira and Fernandes 2009: what is left without a kind of cone."""
    palette = PALETTES["ipttrace-safe"][0]
    pairs = [(palette.good, palette.bad), (palette.good, palette.warn), (palette.bad, palette.warn)]
    for matrix in (PROTANOPIA, DEUTERANOPIA):
        for one, other in pairs:
            assert distance(seen(one, matrix), seen(other, matrix)) > 0.25


@pytest.mark.parametrize("theme", PALETTES)
def test_the_screen_wears_the_colours_of_its_theme(theme: str) -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        while stage.app.theme != theme:
            await stage.press("t")
        await stage.pilot.pause()
        pane = stage.widget(FlowPane)
        ground = pane.background_colors[1]
        palette = PALETTES[theme][0]
        assert ground.hex.lower() == palette.background
        ratios = {f"{each}": worn(tone(pane, each), ground) for each in Tone}
        ratios |= {f"look {each}": worn(look(pane, each), ground) for each in Look}
        assert {name: ratio for name, ratio in ratios.items() if ratio < READABLE} == {}
        cursor = stage.widget(HopList).get_component_rich_style("row--cursor")
        assert cursor.bgcolor is not None
        assert Color.from_rich_color(cursor.bgcolor).hex.lower() == palette.blurred

    play(ListFeed([article()]), act)


def test_one_key_goes_through_all_themes() -> None:
    names = [DEFAULT]
    for _ in range(len(PALETTES)):
        names.append(next_theme(names[-1]))
    assert (set(names), names[-1]) == (set(PALETTES), DEFAULT)
    assert next_theme("somebody's") == DEFAULT


def test_no_other_theme_can_be_chosen() -> None:
    async def act(stage: Stage) -> None:
        assert set(stage.app.available_themes) == set(PALETTES)

    play(ListFeed([article()]), act)


def test_picture_follows_the_theme() -> None:
    async def act(stage: Stage) -> None:
        await stage.ended()
        stage.app.theme = "ipttrace-light"
        light: Palette = PALETTES["ipttrace-light"][0]
        await stage.until(
            lambda: light.background in stage.app.export_screenshot().lower(), "the light theme"
        )
        picture = stage.app.export_screenshot().lower()
        assert light.good in picture
        assert PALETTES[DEFAULT][0].good not in picture

    play(ListFeed([article()]), act)


PROTANOPIA = ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052))
DEUTERANOPIA = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))


def seen(color: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, ...]:
    parts = [_linear(part) for part in Color.parse(color).normalized]
    return tuple(sum(a * b for a, b in zip(row, parts, strict=True)) for row in matrix)


def distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return math.dist(one, other)


def worn(style: Style, ground: Color) -> float:
    assert style.color is not None
    return _ratio(Color.from_rich_color(style.color), ground)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    return _ratio(Color.parse(one), Color.parse(other))


def _ratio(one: Color, other: Color) -> float:
    front, back = _luminance(one), _luminance(other)
    return (max(front, back) + 0.05) / (min(front, back) + 0.05)


def _luminance(color: Color) -> float:
    red, green, blue = (_linear(part) for part in color.normalized)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
