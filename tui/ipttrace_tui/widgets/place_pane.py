"""The selected namespace or lab in full, a lab with its topology."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual.content import Content

from ipttrace.inventory import Place
from ipttrace.lab.parts import LabBackend
from ipttrace_tui.explanation import Sentence
from ipttrace_tui.place_text import lab_details, lab_sentences, place_sentences
from ipttrace_tui.topology_picture import topology_picture
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import INDENT, TextPane
from ipttrace_tui.widgets.toned import look, plain_text, tone
from ipttrace_tui.workbench import LabEntry, LabUp


class PlacePane(TextPane):
    """Sentences, and the picture of a lab."""

    BORDER_TITLE = "in full"

    def __init__(self) -> None:
        super().__init__()
        self._place: Place | None = None
        self._lab: tuple[LabEntry, LabBackend, LabUp | None] | None = None

    def show_place(self, place: Place | None) -> None:
        """Show a namespace."""
        self._turn(place, None)
        self.border_title = Content("namespace")

    def show_lab(self, lab: LabEntry, backend: LabBackend, up: LabUp | None) -> None:
        """Show a lab, and what it would be started with."""
        self._turn(None, (lab, backend, up))
        self.border_title = Content(f"lab {lab.name}")

    def _turn(
        self, place: Place | None, lab: tuple[LabEntry, LabBackend, LabUp | None] | None
    ) -> None:
        if (place, lab) != (self._place, self._lab):
            self.scroll_body(0)
        self._place, self._lab = place, lab
        self.redraw()

    def draw(self) -> Text:
        """Return what there is to say."""
        text = plain_text()
        if self._place is not None:
            self._append(text, place_sentences(self._place))
        if self._lab is not None:
            self._append(text, lab_sentences(*self._lab, self._columns))
            self._append_picture(text, self._lab[0])
            self._append(text, lab_details(self._lab[0]))
        return text

    @property
    def _columns(self) -> int:
        """Columns for text."""
        return self.room.width - len(INDENT)

    def _append(self, text: Text, sentences: Iterable[Sentence]) -> None:
        label = ""
        for sentence in sentences:
            if sentence.label and sentence.label != label:
                text.append(f"{sentence.label}\n", tone(self, Tone.TITLE))
            label = sentence.label
            text.append(f"{'· ' if label else ''}{sentence.text}\n", tone(self, sentence.tone))

    def _append_picture(self, text: Text, lab: LabEntry) -> None:
        if lab.scenario is None:
            return
        width = self._columns
        text.append("topology\n", tone(self, Tone.TITLE))
        for line in topology_picture(lab.scenario, width).lines:
            for segment in line:
                text.append(segment.text, look(self, segment.look))
            text.append("\n")
