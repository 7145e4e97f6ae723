"""Why the selected packet fared as it did."""

from __future__ import annotations

from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace_tui.explanation import why
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import plain_text, tone


class WhyPane(TextPane):
    """The diagnosis: summary, evidence, what did not match, what could be done."""

    BORDER_TITLE = "why"

    def __init__(self) -> None:
        super().__init__()
        self._path: PacketPath | None = None

    def show(self, path: PacketPath | None) -> None:
        """Explain `path`."""
        if path != self._path:
            self.scroll_home(animate=False)
        self._path = path
        self.redraw()

    def draw(self) -> Text:
        """Return one paragraph a sentence, each kind under its own word."""
        text, label = plain_text(), ""
        for sentence in why(self._path) if self._path else ():
            if sentence.label and sentence.label != label:
                text.append(sentence.label + "\n", tone(self, Tone.TITLE))
            label = sentence.label
            text.append(f"{'· ' if label else ''}{sentence.text}\n", tone(self, sentence.tone))
        return text
