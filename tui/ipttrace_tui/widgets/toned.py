"""Names of looks and tones to the colours of the theme; app.tcss says which."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.widget import Widget

from ipttrace.render.diagram import Look
from ipttrace_tui.view_model import Tone

TONE_CLASSES = {f"tone--{tone}" for tone in Tone}
LOOK_CLASSES = {f"look--{look}" for look in Look}


def tone(widget: Widget, name: Tone) -> Style:
    """Return the theme's style for a tone."""
    return _cached(widget, f"tone--{name}")


def look(widget: Widget, name: Look) -> Style:
    """Return the theme's style for a part of the flow picture."""
    return _cached(widget, f"look--{name}")


class Toned(Widget):
    """A widget that keeps its styles until the theme or its state changes: to ask is slow."""

    kept: dict[str, Style]

    def notify_style_update(self) -> None:
        """Forget what was kept."""
        super().notify_style_update()
        self.kept = {}


def _cached(widget: Widget, name: str) -> Style:
    if not isinstance(widget, Toned):
        return front(widget.get_component_rich_style(name))
    kept = widget.kept
    if name not in kept:
        kept[name] = front(widget.get_component_rich_style(name))
    return kept[name]


def front(style: Style) -> Style:
    """Return a style without its background, so that a cursor shows through."""
    return Style(color=style.color, bold=style.bold)


def plain_text(text: str = "", style: Style | str = "") -> Text:
    """Return text that is never taken for markup."""
    return Text(end="").append(text, style)


def fitted(text: str, width: int) -> str:
    """Return `text` in exactly `width` columns, cut with an ellipsis or padded."""
    if width <= 0:
        return ""
    cell = Text(text, end="")
    cell.truncate(width, overflow="ellipsis", pad=True)
    return cell.plain
