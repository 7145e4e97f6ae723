"""The namespaces that there are, and the labs that can be started."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.events import DescendantFocus
from textual.widgets import Input

from ipttrace.inventory import Place
from ipttrace.lab.parts import LabBackend
from ipttrace_tui.asking import Answered
from ipttrace_tui.place_text import lab_words
from ipttrace_tui.screens.full import FullScreen
from ipttrace_tui.widgets.place_lists import LabList, PlaceList
from ipttrace_tui.widgets.place_pane import PlacePane
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.workbench import LabEntry


class PlacesScreen(FullScreen):
    """Two lists, and the selected line in full."""

    NAME = "places"
    SLOWER = 5
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "pane", key_display="tab", tooltip="next pane"),
        Binding("slash", "search", "find", key_display="/", tooltip="show some labs only"),
        Binding("escape", "back", "show all labs, else back to the trace screen", show=False),
        Binding("b", "backend", "backend", tooltip="start the lab with the other backend's rules"),
        Binding("x", "take_down", "down", tooltip="take the lab down that is up"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._backend: LabBackend | None = None
        self._labs: tuple[LabEntry, ...] = ()
        self._complaint = ""
        """What was said last of what cannot be read."""
        self._in_labs = False
        """Which list the pane is about."""

    def body(self) -> ComposeResult:
        """Lay the lists out beside what they show, or above it."""
        with Container(id="places"):
            with Container(id="lists"):
                yield PlaceList()
                yield LabList()
            yield PlacePane()
        yield Input(placeholder="a word of the lab's name, title or text", compact=True, id="find")

    def on_mount(self) -> None:
        """Start in the list of namespaces."""
        super().on_mount()
        self.query_one("#find").display = False
        self.set_focus(self.query_one(PlaceList))

    def action_update(self) -> None:
        """Look what namespaces and labs there are."""
        self.look_again()
        if not self._labs:
            self.ask("labs", self.work.bench.labs)

    def look_again(self) -> None:
        """Look what namespaces there are; the labs of the library do not change."""
        self.ask("namespaces", self.work.bench.places)
        self._show_labs()

    @on(Answered)
    def _take(self, event: Answered) -> None:
        if event.error is not None:
            self._complain(str(event.error))
        elif event.question == "namespaces":
            self._complaint = ""
            self._show_places(tuple(event.value))
        elif event.question == "labs":
            self._labs = tuple(event.value)
            self._show_labs()
        elif event.question == "take down":
            for warning in event.value:
                self.notify(warning, severity="warning", markup=False)
            self.action_update()

    def _show_places(self, places: tuple[Place, ...]) -> None:
        shown = self.query_one(PlaceList)
        before = self.place.name if self.place else None
        names = [place.name for place in places]
        cursor = names.index(before) if before in names else (0 if names else None)
        shown.show(places, cursor)
        self._show_full()

    def _complain(self, text: str) -> None:
        """Say what cannot be read, once."""
        if text != self._complaint:
            self._complaint = text
            self.notify(text, severity="error", markup=False)

    def _show_labs(self) -> None:
        shown = self.query_one(LabList)
        before = self.lab.name if self.lab else ""
        word = self.query_one("#find", Input).value.strip().casefold()
        wanted = [lab for lab in self._labs if word in lab_words(lab)]
        names = [lab.name for lab in wanted]
        cursor = names.index(before) if before in names else (0 if wanted else None)
        shown.empty = "no lab has that word" if self._labs else LabList.empty
        shown.show(wanted, self.work.bench.lab_up(), cursor)
        self._show_full()

    def action_search(self) -> None:
        """Ask for a word of a lab."""
        line = self.query_one("#find", Input)
        line.display = True
        self.set_focus(line)

    @on(Input.Changed)
    def _find(self) -> None:
        self._in_labs = True
        self._show_labs()

    @on(Input.Submitted)
    def _found(self) -> None:
        self.set_focus(self.query_one(LabList))

    def action_back(self) -> None:
        """Show all labs again; if they are shown, go back to the trace screen."""
        line = self.query_one("#find", Input)
        if line.display:
            line.value, line.display = "", False
            self.set_focus(self.query_one(LabList))
        else:
            self.work.action_go("trace")

    @property
    def place(self) -> Place | None:
        """The selected namespace."""
        shown = self.query_one(PlaceList)
        return None if shown.cursor is None else shown.places[shown.cursor]

    @property
    def lab(self) -> LabEntry | None:
        """The selected lab."""
        shown = self.query_one(LabList)
        return None if shown.cursor is None else shown.labs[shown.cursor]

    @property
    def backend(self) -> LabBackend:
        """What the selected lab would be started with."""
        scenario = self.lab.scenario if self.lab else None
        made_for = scenario.backends if scenario else (LabBackend.LEGACY,)
        return self._backend if self._backend in made_for else made_for[0]

    @on(RowList.Moved)
    @on(DescendantFocus)
    def _show_full(self) -> None:
        pane, up = self.query_one(PlacePane), self.work.bench.lab_up()
        if self.query_one(PlaceList).has_focus or self.query_one(LabList).has_focus:
            self._in_labs = self.query_one(LabList).has_focus
        if self._in_labs and self.lab is not None:
            pane.show_lab(self.lab, self.backend, up)
        else:
            pane.show_place(self.place)
        self.subject(f"lab {up.name} is up" if up else "", "a lab is up" if up else "")

    @on(PlaceList.Opened)
    def _open(self, event: PlaceList.Opened) -> None:
        if isinstance(event.sender, PlaceList):
            if self.place is not None:
                self.work.show_rules(self.place.alias or self.place.name)
        elif self.lab is not None and self.lab.scenario is not None:
            self.work.start_lab(self.lab.name, self.backend)

    def action_backend(self) -> None:
        """Change the rules that the selected lab is started with."""
        if self.lab is None or self.lab.scenario is None:
            return
        made_for = self.lab.scenario.backends
        self._backend = made_for[(made_for.index(self.backend) + 1) % len(made_for)]
        if len(made_for) == 1:
            self.notify(f"this lab is made for {made_for[0]} only")
        self.set_focus(self.query_one(LabList))
        self._show_full()

    def action_take_down(self) -> None:
        """Take the lab down that is up."""
        if self.work.bench.lab_up() is None:
            self.notify("no lab is up")
        elif self.work.busy:
            self.notify("the run is not over yet")
        else:
            self.ask("take down", self.work.bench.take_down)
