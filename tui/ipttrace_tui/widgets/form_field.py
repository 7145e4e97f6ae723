"""A field of a form: its name, what it holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.suggester import Suggester
from textual.widgets import Input, Static

from ipttrace.decode.text import clean_text
from ipttrace_tui.widgets.choice import Choice

Complete = Callable[[str], str | None]


class SendField(Input):
    """A line of text; enter sends the whole form, after all that was typed before it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "send", tooltip="send the probe"),
        Binding("ctrl+u", "delete_left_all", "clear", tooltip="clear the field, up to the cursor"),
    ]


class _Completer(Suggester):
    """Asks anew each time: what exists changes."""

    def __init__(self, complete: Complete) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._complete = complete

    async def get_suggestion(self, value: str) -> str | None:
        """Return the whole of what the text may become."""
        return self._complete(value)


class FormField(Vertical):
    """One line, and a line more while there is an error."""

    def __init__(self, name: str, label: str, control: Input | Choice) -> None:
        super().__init__(id=f"field-{name}")
        self.key = name
        self._label = label
        self.control = control

    @classmethod
    def text(cls, name: str, label: str, placeholder: str, complete: Complete) -> FormField:
        """Return a field for text, completed as it is typed."""
        control = SendField(
            placeholder=placeholder,
            compact=True,
            max_length=200,
            suggester=_Completer(complete),
        )
        return cls(name, label, control)

    def compose(self) -> ComposeResult:
        """Hold the field's parts."""
        with Horizontal():
            yield Static(self._label, markup=False, classes="label")
            yield self.control
        yield Static(markup=False, classes="error")

    @property
    def value(self) -> str:
        """What the field holds."""
        return self.control.value

    @value.setter
    def value(self, text: str) -> None:
        """Put a text into the field, the cursor behind it."""
        self.control.value = text
        if isinstance(self.control, Input):
            self.control.cursor_position = len(text)

    def select_all(self) -> None:
        """Let what is typed next replace what a field for text holds."""
        if isinstance(self.control, Input):
            self.control.select_all()

    def complain(self, error: str) -> None:
        """Say what is wrong, or (empty) that nothing is."""
        line = self.query_one(".error", Static)
        line.update(f"✗ {clean_text(error)}" if error else "")
        line.display = bool(error)
        self.set_class(bool(error), "-wrong")
