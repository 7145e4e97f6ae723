"""The packet at the selected hop."""

from __future__ import annotations

from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace_tui.explanation import hop_sentences
from ipttrace_tui.header_fields import Field, fields_at
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import plain_text, tone


class PacketPane(TextPane):
    """What the hop says in full, and the headers behind it."""

    BORDER_TITLE = "packet at this hop"

    def __init__(self) -> None:
        super().__init__()
        self._path: PacketPath | None = None
        self._hop: int | None = None

    def show(self, path: PacketPath | None, hop: int | None) -> None:
        """Show `path` as it is behind `hop`."""
        self._path, self._hop = path, hop
        self.scroll_home(animate=False)
        self.redraw()

    def draw(self) -> Text:
        """Return the hop's sentences, then one line a header field."""
        text = plain_text()
        if self._path is None:
            return text
        for sentence in hop_sentences(self._path, self._hop):
            text.append(sentence.text + "\n", tone(self, sentence.tone))
        fields = fields_at(self._path, self._hop)
        for field in sorted(fields, key=lambda field: not field.before):
            self._append(text, field)
        return text

    def _append(self, text: Text, field: Field) -> None:
        text.append(f"{field.name:<7}", tone(self, Tone.MUTED))
        if field.before:
            text.append(f"{field.before} → {field.value}", tone(self, Tone.CHANGED))
        else:
            text.append(field.value)
        text.append("\n")
