"""Why the selected packet fared as it did."""

from __future__ import annotations

from rich.cells import cell_len
from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace_tui.explanation import why
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import INDENT, TextPane
from ipttrace_tui.widgets.toned import plain_text, tone


class WhyPane(TextPane):
    """The diagnosis: summary, evidence, what did not match, what could be done."""

    BORDER_TITLE = "why"

    def __init__(self) -> None:
        super().__init__()
        self._path: PacketPath | None = None
        self._taken = 0

    def show(self, path: PacketPath | None) -> None:
        """Explain `path`."""
        if path != self._path:
            self.scroll_body(0)
            self._taken = 0
        self._path = path
        self.redraw()

    def take_command(self) -> tuple[str, str] | None:
        """Return the next command of a remedy and which one it is, round and round; or None."""
        sentences = why(self._path) if self._path else ()
        commands = [each.command for each in sentences if each.command]
        if not commands:
            return None
        place = self._taken % len(commands)
        self._taken += 1
        return commands[place], f"command {place + 1} of {len(commands)}"

    def draw(self) -> Text:
        """Return one paragraph a sentence, each kind under its own word.

        A command stands behind its words, or where it does not fit, in lines of its own.
        """
        text, label = plain_text(), ""
        for sentence in why(self._path) if self._path else ():
            if sentence.label and sentence.label != label:
                text.append(sentence.label + "\n", tone(self, Tone.TITLE))
            label = sentence.label
            words = f"{'· ' if label else ''}{sentence.text}"
            text.append(words, tone(self, sentence.tone))
            if sentence.command:
                fits = cell_len(f"{words} {sentence.command}") <= self.room.width - len(INDENT)
                text.append(" " if fits else "\n    ")
                text.append(sentence.command, tone(self, Tone.STRONG))
            text.append("\n")
        return text
