"""The colours: dark, light, and one whose meanings a colour-blind reader can tell apart.

Every colour of text has a contrast of at least 4.5:1 (WCAG 2.2, 1.4.3) with every ground it stands
on; tests/tui/test_themes.py computes it from
these tables.  The third theme takes its hues from Okabe and Ito's palette: orange and blue where
others have red and green.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from textual.theme import Theme

if TYPE_CHECKING:
    from textual.app import App


@dataclass(frozen=True, slots=True)
class Palette:
    """One colour a role; text roles first, then grounds."""

    plain: str
    muted: str
    dim: str
    """Parts of the map that the packet did not meet."""
    good: str
    bad: str
    warn: str
    changed: str
    title: str
    frame: str
    """Lines between panes."""
    background: str
    panel: str
    """Of bars."""
    surface: str
    """Of dialogues and fields."""
    cursor: str
    """Of the selected row, in a pane that has the focus."""
    blurred: str
    """Of the selected row elsewhere."""


DARK = Palette(
    plain="#e4e6ea",
    muted="#b3b9c4",
    dim="#8b929e",
    good="#6fdc8c",
    bad="#ff9191",
    warn="#f5c451",
    changed="#ffb86b",
    title="#8ac7ff",
    frame="#6b7280",
    background="#14161b",
    panel="#1e222a",
    surface="#20242d",
    cursor="#1f3f66",
    blurred="#2a2f3a",
)
LIGHT = Palette(
    plain="#1b1f24",
    muted="#4a525c",
    dim="#5f6771",
    good="#0b5d27",
    bad="#a40e26",
    warn="#6f4400",
    changed="#7a3100",
    title="#0a4690",
    frame="#868e99",
    background="#fbfbf9",
    panel="#ecedec",
    surface="#f1f1ef",
    cursor="#cfe2fb",
    blurred="#e3e5e8",
)
SAFE = Palette(
    plain="#f2f2f2",
    muted="#c0c0c0",
    dim="#949494",
    good="#56b4e9",
    bad="#ff9d4d",
    warn="#f0e442",
    changed="#e8a8cc",
    title="#ffffff",
    frame="#7a7a7a",
    background="#101010",
    panel="#202020",
    surface="#242424",
    cursor="#123a5c",
    blurred="#303030",
)
PALETTES: dict[str, tuple[Palette, bool]] = {
    "ipttrace-dark": (DARK, True),
    "ipttrace-light": (LIGHT, False),
    "ipttrace-safe": (SAFE, True),
}
"""By the theme's name; and whether it is dark."""
DEFAULT = "ipttrace-dark"


def css_variables(palette: Palette) -> dict[str, str]:
    """Return the names that app.tcss uses: `$ipt-good` and so on."""
    return {f"ipt-{role}": color for role, color in asdict(palette).items()}


def default_variables() -> dict[str, str]:
    """Return the colours that a theme of others lacks."""
    return css_variables(PALETTES[DEFAULT][0])


def next_theme(name: str) -> str:
    """Return the theme after `name`."""
    names = list(PALETTES)
    return names[(names.index(name) + 1) % len(names)] if name in names else DEFAULT


def wear(app: App[Any]) -> None:
    """Make these the only themes of an application: those of others promise no contrast."""
    for name in [*app.available_themes]:
        app.unregister_theme(name)
    for theme in themes():
        app.register_theme(theme)
    app.theme = DEFAULT


def themes() -> list[Theme]:
    """Return the themes, in the order in which one key goes through them."""
    return [
        Theme(
            name,
            primary=palette.title,
            secondary=palette.muted,
            accent=palette.changed,
            warning=palette.warn,
            error=palette.bad,
            success=palette.good,
            foreground=palette.plain,
            background=palette.background,
            surface=palette.surface,
            panel=palette.panel,
            dark=dark,
            variables=css_variables(palette),
        )
        for name, (palette, dark) in PALETTES.items()
    ]
