"""Asks under which name to save; the name's ending says what."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ipttrace.decode.text import clean_text
from ipttrace.system.result_file import FileExistsAlready
from ipttrace_tui.asking import Answered, Asking
from ipttrace_tui.saving import KINDS, Shown, save
from ipttrace_tui.widgets.key_bar import KeyBar


class NameField(Input):
    """The file's name."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "submit", "save", tooltip="save, unless the file exists"),
    ]


class SaveScreen(ModalScreen[None]):
    """Lies over the others until something was saved, or escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+o", "overwrite", "overwrite", tooltip="replace the file that exists"),
        Binding("tab", "kind", "kind", tooltip="the next kind of file", priority=True),
        Binding("escape", "dismiss", "close"),
    ]

    def __init__(self, shown: Shown) -> None:
        super().__init__()
        self._asking = Asking(self)
        self._shown = shown

    def compose(self) -> ComposeResult:
        """Hold the name, what is wrong with it, and the kinds."""
        with Vertical(id="save"):
            yield NameField(compact=True, select_on_focus=False)
            yield Static(markup=False, classes="error")
            yield Static(markup=False, id="kinds")
        yield KeyBar()

    def on_mount(self) -> None:
        """Offer a name."""
        self.query_one("#save").border_title = Content("save as")
        number = self._shown.path.id if self._shown.path else 0
        name = self.query_one(Input)
        name.value = f"ipttrace-{number}{next(iter(KINDS))}"
        name.cursor_position = len(name.value)
        rows = [f"{suffix:<8} {what}" for suffix, what in KINDS.items()]
        self.query_one("#kinds", Static).update("\n".join(rows))
        self.set_focus(name)

    def action_kind(self) -> None:
        """Change the ending of the name to that of the next kind."""
        name, suffixes = self.query_one(Input), list(KINDS)
        path = Path(name.value)
        at = suffixes.index(path.suffix) + 1 if path.suffix in suffixes else 0
        stem = name.value.removesuffix(path.suffix) if path.suffix in suffixes else name.value
        name.value = stem + suffixes[at % len(suffixes)]
        name.cursor_position = len(name.value)

    @on(Input.Submitted)
    def _save_new(self) -> None:
        """Save, unless the file exists."""
        self._save(overwrite=False)

    def action_overwrite(self) -> None:
        """Save, and replace the file if it exists."""
        self._save(overwrite=True)

    def _save(self, *, overwrite: bool) -> None:
        name = self.query_one(Input).value.strip()
        if not name:
            self._complain("a name is missing")
            return
        self._asking.ask("file", partial(save, name, self._shown, overwrite=overwrite))

    @on(Input.Changed)
    def _take_error_back(self) -> None:
        self._complain("")

    @on(Answered)
    def _saved(self, event: Answered) -> None:
        if isinstance(event.error, FileExistsAlready):
            self._complain(f"{event.error.message}; ctrl+o replaces it, or give another name")
        elif event.error is not None:
            self._complain(str(event.error))
        else:
            self.app.notify(clean_text(f"saved {event.value}"), markup=False)
            self.dismiss()

    def _complain(self, error: str) -> None:
        line = self.query_one(".error", Static)
        line.update(f"✗ {clean_text(error)}" if error else "")
        line.display = bool(error)
