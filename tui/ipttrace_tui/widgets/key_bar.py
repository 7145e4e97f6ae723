"""The last line: the keys that do something here."""

from __future__ import annotations

from rich.text import Text
from textual.screen import Screen

from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone


class KeyBar(Bar):
    """Follows the focus: each pane has keys of its own."""

    def on_mount(self) -> None:
        """Follow the focus."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, _screen: Screen[object]) -> None:
        self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return the keys and their words."""
        text, said = plain_text(), set[str]()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show and binding.action not in said:
                said.add(binding.action)
                key = binding.key_display or binding.key
                text.append(key, tone(self, Tone.TITLE)).append(f" {binding.description}   ")
        return text, plain_text()
