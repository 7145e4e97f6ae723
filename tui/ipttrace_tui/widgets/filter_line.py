"""The filter line: what packets must meet, or why it cannot be understood."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Click
from textual.message import Message
from textual.widgets import Input

from ipttrace.errors import UsageError
from ipttrace_tui.packet_filter import HINT, Known, PacketFilter, parse_filter
from ipttrace_tui.packet_table import PacketTable
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.said import Said

PAUSE = 0.15
"""Seconds without a key after which what is written is tried."""


class FilterInput(Input):
    """Where the words are written."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "give_up", "no filter", tooltip="end the filter"),
        Binding("enter,down", "submit", "to the list", key_display="enter"),
    ]

    class GivenUp(Message):
        """The user wants no filter."""

    def action_give_up(self) -> None:
        """Say that no filter is wanted."""
        self.post_message(self.GivenUp())


class FilterLine(Horizontal):
    """Shows the filter; `edit` lets the user write it."""

    class Wanted(Message):
        """The user wants to see these packets; `done` if they have left the line."""

        def __init__(self, wanted: PacketFilter, *, done: bool) -> None:
            super().__init__()
            self.filter = wanted
            self.done = done

    def __init__(self) -> None:
        super().__init__()
        self._known = Known()
        self._text = ""
        self._error = ""
        self._passing = ""
        self._editing = False

    def compose(self) -> ComposeResult:
        """Hold the text that is shown."""
        yield Said()

    def on_mount(self) -> None:
        """Show how it is used."""
        self._say()

    @property
    def editing(self) -> bool:
        """Whether the user writes."""
        return self._editing

    async def edit(self, known: Known) -> None:
        """Let the user write; `known` are words that packets have brought.

        The next key is the line's: it has the focus when this returns.
        """
        self._known = known
        if self.editing:
            self.screen.set_focus(self.query_one(FilterInput))
            return
        self._editing = True
        field = FilterInput(self._text, placeholder=HINT, compact=True, select_on_focus=False)
        await self.mount(field, before=0)
        self.screen.set_focus(field)
        self._say()

    def clear(self) -> None:
        """Show all packets again."""
        self._text, self._error = "", ""
        self._close(PacketFilter())

    def show(self, table: PacketTable) -> None:
        """Show how many packets pass."""
        more = "" if table.done else " so far"
        text = f"{len(table):,} of {table.total:,} pass{more}" if table.filter else ""
        if text != self._passing:
            self._passing = text
            self._say()

    async def on_click(self, event: Click) -> None:
        """Write."""
        event.stop()
        if not self.editing:
            await self.edit(self._known)

    @on(Input.Changed)
    def _written(self, event: Input.Changed) -> None:
        event.stop()
        self._text = event.value
        self.set_timer(PAUSE, lambda text=event.value: self._try(text))

    def _try(self, text: str) -> None:
        """Filter as soon as the user stops writing."""
        if self.editing and text == self._text:
            wanted = self._parsed()
            if wanted is not None:
                self.post_message(self.Wanted(wanted, done=False))

    def _parsed(self) -> PacketFilter | None:
        try:
            wanted = parse_filter(self._text, self._known)
        except UsageError as error:
            self._error = str(error)
            self._say()
            return None
        self._error = ""
        self._say()
        return wanted

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        self._text = event.value
        wanted = self._parsed()
        if wanted is not None:
            self._close(wanted)

    @on(FilterInput.GivenUp)
    def _give_up(self, event: FilterInput.GivenUp) -> None:
        event.stop()
        self.clear()

    def _close(self, wanted: PacketFilter) -> None:
        self._editing = False
        for field in self.query(FilterInput):
            field.remove()
        self._text = wanted.text
        self.post_message(self.Wanted(wanted, done=True))
        self._say()

    def _say(self) -> None:
        """Write what there is to say at the right, or in the whole line."""
        said = self.query_one(Said)
        self.set_class(self.editing or bool(self._text), "-used")
        self.set_class(self.editing, "-editing")
        self.set_class(bool(self._error), "-error")
        if self._error:
            said.say(f"✗ {self._error}", Tone.BAD)
        elif self.editing:
            said.say(self._passing, Tone.MUTED)
        elif self._text:
            said.say(f"filter  {self._text}", Tone.STRONG, f"{self._passing}   esc ends it")
        else:
            said.say("/ filters, e.g. " + HINT, Tone.MUTED)
