"""The last line: the keys that do something here."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual.binding import ActiveBinding
from textual.events import Click
from textual.screen import Screen

from ipttrace_tui.key_words import key_name
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.bar import Bar
from ipttrace_tui.widgets.toned import plain_text, tone

GAP = "   "
ALWAYS = frozenset({"help", "leave", "dismiss"})
"""Names of actions that are never left out; a screen has more in `PINNED_KEYS`."""


class KeyBar(Bar):
    """Follows the focus: each pane has keys of its own."""

    def on_mount(self) -> None:
        """Follow the focus."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, _screen: Screen[object]) -> None:
        self.redraw()

    def parts(self) -> tuple[Text, Text]:
        """Return the keys and their words."""
        text = plain_text()
        for place, number in enumerate(self._fitting()):
            keys, word = _words(self._shown()[number])
            text.append(GAP if place else "")
            click = Style(meta={"binding": number})
            text.append(keys, tone(self, Tone.TITLE) + click).append(f" {word}", click)
        return text, plain_text()

    def _fitting(self) -> list[int]:
        """Return the bindings that there is room for; those that lead on from here, always."""
        shown = self._offered()
        sizes = [sum(map(len, _words(each))) + 1 + len(GAP) for each in shown.values()]
        kept = ALWAYS | getattr(self.screen, "PINNED_KEYS", frozenset())
        fitting = list(range(len(sizes)))
        less = [number for number, name in enumerate(shown) if name not in kept]
        while less and sum(sizes[each] for each in fitting) - len(GAP) > self._room:
            fitting.remove(less.pop())
        return fitting

    @property
    def _room(self) -> int:
        return self.content_size.width - 2

    def _shown(self) -> list[list[ActiveBinding]]:
        return list(self._offered().values())

    def _offered(self) -> dict[str, list[ActiveBinding]]:
        """Return the bindings to show, those of one group or one action together."""
        shown: dict[str, list[ActiveBinding]] = {}
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.show:
                name = binding.group.description if binding.group else binding.action
                shown.setdefault(name, []).append(active)
        return shown

    async def on_click(self, event: Click) -> None:
        """Do what the key does that the mouse points at."""
        number = event.style.meta.get("binding")
        shown = self._shown()
        if isinstance(number, int) and number < len(shown):
            active = shown[number][0]
            await self.app.run_action(active.binding.action, active.node)


def _words(shown: Sequence[ActiveBinding]) -> tuple[str, str]:
    first, last = shown[0].binding, shown[-1].binding
    if first.group is not None:
        return f"{key_name(first.key)}-{key_name(last.key)}", first.group.description
    return first.key_display or key_name(first.key.split(",")[0]), first.description
