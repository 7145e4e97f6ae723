"""The flow picture of the selected packet."""

from __future__ import annotations

from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace.render.diagram import Look, Picture, flow_picture
from ipttrace.ruleset import Ruleset
from ipttrace_tui.view_model import packet_title
from ipttrace_tui.widgets.text_pane import INDENT, TextPane
from ipttrace_tui.widgets.toned import look, plain_text


class FlowPane(TextPane):
    """Netfilter's hooks, with the packet's way lit."""

    BORDER_TITLE = "way"
    scrolls = False
    """Every column may decide whether boxes fit: the bar takes one only where lines do not."""

    def __init__(self) -> None:
        super().__init__()
        self._path: PacketPath | None = None
        self._hop: int | None = None
        self._rules: Ruleset | None = None
        self._marked: list[int] = []
        """The lines in which the hop is marked."""

    def show(self, path: PacketPath | None, hop: int | None, rules: Ruleset | None) -> None:
        """Show the way of `path`, with `hop` marked; tables that hold no rules stand back."""
        another = (path, hop) != (self._path, self._hop)
        self._path, self._hop, self._rules = path, hop, rules
        self.entitle(f"way of packet {path.id}   {packet_title(path)}" if path else "way")
        self.redraw()
        if another:
            self.reveal()

    def catch_up(self) -> None:
        """Fit the new size, and keep the hop in sight."""
        super().catch_up()
        self.reveal()

    def redraw(self) -> None:
        """Draw anew what differs; all of it where the scroll bar comes or goes."""
        before = self.scrolls
        super().redraw()
        if self.scrolls != before:
            self.refresh()

    def reveal(self) -> None:
        """Scroll no further than the marked hop needs."""
        if not self._marked:
            self.scroll_body(0)
            return
        lowest = self._marked[-1] - self.room.height + 1
        self.scroll_body(min(self._marked[0], max(self.top, lowest)))

    def draw(self) -> Text:
        """Return the picture in the theme's colours."""
        self.scrolls = False
        picture = self._picture()
        if picture.height > self.room.height:
            self.scrolls = True
            picture = self._picture()
        self._marked = [
            number
            for number, line in enumerate(picture.lines)
            if any(segment.look is Look.SELECTED for segment in line)
        ]
        text = plain_text()
        for number, line in enumerate(picture.lines):
            text.append("\n" if number else "")
            for segment in line:
                text.append(segment.text, look(self, segment.look))
        text.no_wrap = True
        return text

    def _picture(self) -> Picture:
        room = self.room
        width = room.width - len(INDENT)
        return flow_picture(self._path, width, self._hop, room.height, self._rules)
