"""The packet's headers at the selected hop."""

from __future__ import annotations

from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace_tui.explanation import hop_sentences
from ipttrace_tui.header_fields import Field, packet_lines
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import INDENT, TextPane
from ipttrace_tui.widgets.toned import plain_text, tone

NAME = 7
GAP = "   "


class PacketPane(TextPane):
    """What the hop changed, then the headers as they are behind it, then the hop in full."""

    BORDER_TITLE = "packet"

    def __init__(self) -> None:
        super().__init__()
        self._path: PacketPath | None = None
        self._hop: int | None = None

    def show(self, path: PacketPath | None, hop: int | None) -> None:
        """Show `path` as it is behind `hop`."""
        if path is not self._path:
            self.scroll_body(0)
        self._path, self._hop = path, hop
        at = f" at hop {hop + 1} of {len(path.hops)}" if path and hop is not None else ""
        self.entitle(f"packet{at}")
        self.redraw()

    def draw(self) -> Text:
        """Return a line a change, then the headers, then the hop's sentences."""
        text = plain_text()
        if self._path is None:
            return text
        *alone, rest = packet_lines(self._path, self._hop)
        for line in alone:
            for field in line:
                self._append(text, field)
            text.append("\n")
        self._append_rest(text, rest)
        for sentence in hop_sentences(self._path, self._hop):
            text.append(sentence.text + "\n", tone(self, sentence.tone))
        return text

    def _append(self, text: Text, field: Field) -> None:
        if field.before:
            text.append(f"{field.name:<{NAME}}", tone(self, Tone.CHANGED))
            text.append(f"{field.before} → {field.value}", tone(self, Tone.CHANGED))
            text.append("  changed here", tone(self, Tone.MUTED))
            return
        text.append(f"{field.name:<{NAME}}", tone(self, Tone.MUTED))
        text.append(field.value)

    def _append_rest(self, text: Text, fields: tuple[Field, ...]) -> None:
        """Write several fields a line; no line ends between a name and its value."""
        column, room = 0, self.room.width - len(INDENT)
        for field in fields:
            length = len(field.name) + 1 + len(field.value)
            if column and column + len(GAP) + length > room:
                text.append("\n")
                column = 0
            text.append(GAP if column else "")
            text.append(f"{field.name} ", tone(self, Tone.MUTED)).append(field.value)
            column += length + (len(GAP) if column else 0)
        text.append("\n")
