"""The flow picture of the selected packet."""

from __future__ import annotations

from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace.render.diagram import flow_picture
from ipttrace.ruleset import Ruleset
from ipttrace_tui.view_model import packet_title
from ipttrace_tui.widgets.text_pane import INDENT, TextPane
from ipttrace_tui.widgets.toned import look, plain_text


class FlowPane(TextPane):
    """Netfilter's hooks, with the packet's way lit."""

    BORDER_TITLE = "way"
    scrolls = False
    """The picture is drawn to fit, and every column may decide whether boxes do."""

    def __init__(self) -> None:
        super().__init__()
        self._path: PacketPath | None = None
        self._hop: int | None = None
        self._rules: Ruleset | None = None

    def show(self, path: PacketPath | None, hop: int | None, rules: Ruleset | None) -> None:
        """Show the way of `path`, with `hop` marked; tables that hold no rules stand back."""
        self._path, self._hop, self._rules = path, hop, rules
        self.entitle(f"way of packet {path.id}   {packet_title(path)}" if path else "way")
        self.redraw()

    def draw(self) -> Text:
        """Return the picture in the theme's colours."""
        room = self.room
        width = room.width - len(INDENT)
        picture = flow_picture(self._path, width, self._hop, room.height, self._rules)
        text = plain_text()
        for number, line in enumerate(picture.lines):
            text.append("\n" if number else "")
            for segment in line:
                text.append(segment.text, look(self, segment.look))
        text.no_wrap = True
        return text
