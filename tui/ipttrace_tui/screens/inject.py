"""The inject form: describe a probe, and send it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import DescendantBlur, DescendantFocus
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ipttrace.decode.text import clean_text
from ipttrace.inventory import Place
from ipttrace.probe import PROTOCOLS, ProbeSpec
from ipttrace_tui.asking import Answered, Asking
from ipttrace_tui.history import History
from ipttrace_tui.probe_form import (
    CONTAINED,
    FIELDS,
    LET_OUT,
    WAYS,
    FormValues,
    candidates,
    check,
    completed,
    shown_fields,
    split_target,
    where_from,
    without_gone,
)
from ipttrace_tui.settings import TRIGGERS
from ipttrace_tui.widgets.choice import Choice
from ipttrace_tui.widgets.form_field import FormField
from ipttrace_tui.widgets.history_list import HistoryList
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.workbench import Workbench

CHOICES = {
    "protocol": ("protocol", PROTOCOLS),
    "way": ("made by", WAYS),
    "trigger": ("trigger", TRIGGERS),
    "containment": ("the packet is", (CONTAINED, LET_OUT)),
}
"""Field to label and words."""

TEXTS = {
    "to": ("to", "address, or address:port"),
    "port": ("port", "1 to 65535"),
    "source": ("from", "any; address, or address:port"),
    "interface": ("comes in on", "interface"),
    "client": ("client in", "namespace"),
    "netns": ("trace in", "this host; or names, in the order of the way"),
    "flags": ("TCP flags", "SYN"),
    "size": ("size", "bytes of the whole IP packet"),
    "count": ("count", "1"),
}
"""Field to label and what it is where it is empty."""


EARLIER = "fill an earlier probe in"


@dataclass(frozen=True, slots=True)
class Filled:
    """What the user wants to have sent."""

    values: FormValues
    spec: ProbeSpec


class InjectScreen(ModalScreen[Filled | None]):
    """Lies over the others; its result is the probe, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "send", tooltip="send the probe"),
        Binding("tab,down", "turn(1)", "next field", key_display="tab"),
        Binding("shift+tab,up", "turn(-1)", "field before", show=False),
        Binding("ctrl+n", "complete", "complete", tooltip="put the next of what exists in"),
        Binding("pageup", "recall(1)", "sent before", key_display="pgup", tooltip=EARLIER),
        Binding("pagedown", "recall(-1)", "fill a later probe in", show=False),
        Binding("escape", "dismiss", "close"),
    ]

    def __init__(
        self, bench: Workbench, history: History, values: FormValues, looked_at: str, ends: str
    ) -> None:
        """`looked_at` is the namespace that the screen shows, `ends` what a probe would end."""
        super().__init__()
        self._asking = Asking(self)
        self._bench = bench
        self._history = history
        self._first = values
        self._looked_at = looked_at
        self._ends = ends
        self._places: tuple[Place, ...] = ()
        self._typed: str | None = None
        """What stood in the field before it was completed again and again."""
        self._put_in: str | None = None

    def compose(self) -> ComposeResult:
        """Lay the fields out, the history beside them or below."""
        with Horizontal(id="form"):
            with Vertical(id="fields"):
                for name in FIELDS:
                    yield self._field(name)
                yield Static(markup=False, id="says")
                yield Static(markup=False, id="exists")
            yield HistoryList()
        yield KeyBar()

    def _field(self, name: str) -> FormField:
        if name in CHOICES:
            label, words = CHOICES[name]
            return FormField(name, label, Choice(words))
        label, placeholder = TEXTS[name]
        return FormField.text(name, label, placeholder, partial(self._completion, name))

    def on_mount(self) -> None:
        """Fill the form, and look at what exists."""
        shown = f"namespace {self._looked_at}" if self._looked_at else "this host"
        title = clean_text(f" send a probe   the screen shows {shown} ")
        self.query_one("#fields").border_title = Content(title)
        self.query_one(HistoryList).show(self._history.entries)
        self.fill(self._first)
        self.set_focus(self._at("to").control)
        self._asking.ask("namespaces", self._bench.places)

    def _at(self, name: str) -> FormField:
        return self.query_one(f"#field-{name}", FormField)

    @property
    def values(self) -> FormValues:
        """What the fields hold."""
        return FormValues(**{name: self._at(name).value for name in FIELDS})

    def fill(self, values: FormValues) -> None:
        """Put values into the fields."""
        for name in FIELDS:
            self._at(name).value = getattr(values, name)
            self._at(name).complain("")
        if (field := self._focused_field) is not None:
            field.select_all()
        self._show_fields()

    @on(Answered)
    def _take_places(self, event: Answered) -> None:
        if event.error is None:
            self._places = tuple(event.value)
            self._leave_what_is_gone()
        else:
            self.notify(str(event.error), severity="warning", markup=False)
        self._say_what_exists()

    def _leave_what_is_gone(self) -> None:
        """Put the namespace that is looked at in place of one that is no more, unless typed."""
        mended = without_gone(self._first, self._places, self._looked_at)
        for name in ("netns", "client"):
            if self._at(name).value == getattr(self._first, name):
                self._at(name).value = getattr(mended, name)

    @on(Choice.Changed)
    def _show_fields(self) -> None:
        """Show the fields that mean something for such a probe."""
        shown = shown_fields(self.values)
        for name in FIELDS:
            self._at(name).display = name in shown
        self._say_what_exists()

    @on(Input.Changed)
    def _take_error_back(self, event: Input.Changed) -> None:
        field = next(each for each in event.input.ancestors if isinstance(each, FormField))
        field.complain("")
        if event.value != self._put_in:
            self._typed = None
        self._say_what_exists()

    @on(DescendantFocus)
    def _enter_field(self) -> None:
        self._typed = None
        self._say_what_exists()

    @on(DescendantBlur)
    def _leave_field(self) -> None:
        """An address with its port goes into its two fields."""
        values = self.values
        parted = split_target(values, values.to)
        if parted != values and parted.to != values.to.strip():
            self._at("to").value, self._at("port").value = parted.to, parted.port

    def action_turn(self, step: int) -> None:
        """Go to the next field or the one before, also to one that has just been brought in.

        Textual orders by places on the screen, which such a field does not have yet.
        """
        shown = [self._at(name).control for name in shown_fields(self.values)]
        order = [*shown, self.query_one(HistoryList)]
        here = order.index(self.focused) if self.focused in order else -1
        self.set_focus(order[(here + step) % len(order)])

    @property
    def _focused_field(self) -> FormField | None:
        if self.focused is None:
            return None
        return next((e for e in self.focused.ancestors if isinstance(e, FormField)), None)

    def _candidates(self, name: str) -> tuple[str, ...]:
        return candidates(name, self.values, self._places)

    def _completion(self, name: str, text: str) -> str | None:
        return completed(text, self._candidates(name))

    def _say_what_exists(self) -> None:
        field = self._focused_field
        found = self._candidates(field.key) if field is not None else ()
        words = f"there are: {'  '.join(found)}" if found else ""
        self.query_one("#exists", Static).update(clean_text(words))
        said = where_from(self.values) + (f"; ends {self._ends}" if self._ends else "")
        self.query_one("#says", Static).update(clean_text(said))

    def action_complete(self) -> None:
        """Put the next of what exists into the field, round and round."""
        field = self._focused_field
        if field is None or not isinstance(field.control, Input):
            return
        self._typed = field.value if self._typed is None else self._typed
        head, space, word = self._typed.rpartition(" ")
        found = [e for e in self._candidates(field.key) if e.startswith(word)]
        if not found:
            return
        texts = [f"{head}{space}{each}" for each in found]
        at = texts.index(field.value) + 1 if field.value in texts else 0
        self._put_in = texts[at % len(texts)]
        field.value = self._put_in

    def action_recall(self, step: int) -> None:
        """Fill in an earlier or a later probe of the history."""
        entries, shown = self._history.entries, self.query_one(HistoryList)
        if not entries:
            return
        index = -1 if shown.cursor is None else shown.cursor
        shown.cursor = min(max(index + step, 0), len(entries) - 1)
        self.fill(entries[shown.cursor])

    @on(RowList.Moved)
    def _recall_chosen(self, event: RowList.Moved) -> None:
        event.stop()
        self.fill(self._history.entries[event.index])

    @on(Input.Submitted)
    def action_send(self) -> None:
        """Send the probe, or say at each field what is wrong."""
        self._leave_field()
        values = self.values
        checked = check(values)
        for name in FIELDS:
            self._at(name).complain(checked.errors.get(name, ""))
        if checked.spec is not None:
            self.dismiss(Filled(replace(values, to=checked.spec.dst), checked.spec))
            return
        first = next(name for name in FIELDS if name in checked.errors)
        self.set_focus(self._at(first).control)
