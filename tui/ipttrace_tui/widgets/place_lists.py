"""The lists of namespaces and of labs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.message import Message

from ipttrace.decode.text import clean_text
from ipttrace.inventory import Place
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone
from ipttrace_tui.workbench import LabEntry, LabUp


class OpenList(RowList):
    """A list whose lines can be opened."""

    BINDINGS: ClassVar[list[BindingType]] = []

    class Opened(Message):
        """A line was opened by enter or by a second click."""

        def __init__(self, sender: OpenList, index: int) -> None:
            super().__init__()
            self.sender = sender
            self.index = index

        @property
        def control(self) -> OpenList:
            """The list, so that handlers can select by it."""
            return self.sender

    def action_open(self) -> None:
        """Open the line at the cursor."""
        if self.cursor is not None:
            self.post_message(self.Opened(self, self.cursor))

    def on_click(self, event: Click) -> None:
        """A second click opens."""
        if event.chain == 2:
            self.action_open()


class PlaceList(OpenList):
    """One line a namespace: its kind, its name, how many interfaces and addresses."""

    BORDER_TITLE = "namespaces"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "its rules", tooltip="show the rules of the namespace"),
    ]
    empty = "looking …"

    def __init__(self) -> None:
        super().__init__()
        self.places: Sequence[Place] = ()

    def show(self, places: Sequence[Place], cursor: int | None) -> None:
        """Show these namespaces."""
        self.places = places
        self.border_subtitle = str(len(places)) if places else ""
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of namespaces."""
        return len(self.places)

    def line(self, index: int, width: int) -> Text:
        """Return a namespace's line."""
        place = self.places[index]
        kind = fitted(str(place.kind), 10)
        addresses = ", ".join(a for a in place.addresses if a not in ("127.0.0.1", "::1"))
        name = min(max(len(clean_text(each.title)) for each in self.places), max(8, width // 2))
        text = plain_text(kind, tone(self, Tone.MUTED))
        text.append(fitted(clean_text(place.title), name) + "  ", tone(self, Tone.STRONG))
        rest = max(0, width - 10 - name - 2)
        text.append(fitted(clean_text(addresses), rest), tone(self, Tone.MUTED))
        return text


class LabList(OpenList):
    """One line a lab: its name, its title, and whether it is up."""

    BORDER_TITLE = "labs"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "start", tooltip="start the lab; its packets come to the trace"),
    ]
    empty = "looking …"

    def __init__(self) -> None:
        super().__init__()
        self.labs: Sequence[LabEntry] = ()
        self.up: LabUp | None = None

    def show(self, labs: Sequence[LabEntry], up: LabUp | None, cursor: int | None) -> None:
        """Show these labs, and which is up."""
        self.labs, self.up = labs, up
        self.border_subtitle = str(len(labs)) if labs else ""
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of labs."""
        return len(self.labs)

    def line(self, index: int, width: int) -> Text:
        """Return a lab's line."""
        lab = self.labs[index]
        here = self.up is not None and self.up.name == lab.name
        state = f"● up, {self.up.backend}  " if here and self.up is not None else ""
        name = min(max(len(each.name) for each in self.labs), max(8, width // 2))
        text = plain_text(fitted(lab.name, name) + "  ", tone(self, Tone.STRONG))
        text.append(state, tone(self, Tone.GOOD))
        title = lab.scenario.title if lab.scenario else f"✗ {lab.error}"
        rest = max(0, width - name - 2 - len(state))
        name_of = Tone.MUTED if lab.scenario else Tone.BAD
        text.append(fitted(clean_text(title), rest), tone(self, name_of))
        return text
