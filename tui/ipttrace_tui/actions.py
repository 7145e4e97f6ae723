"""What can be done from every screen: send a probe, save, copy, find help."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen

from ipttrace.decode.text import clean_text
from ipttrace_tui.feed import Feed
from ipttrace_tui.history import History
from ipttrace_tui.key_words import Offer, described_bindings
from ipttrace_tui.navigation import Navigation
from ipttrace_tui.settings import BREAKPOINTS, Settings
from ipttrace_tui.widgets.why_pane import WhyPane

if TYPE_CHECKING:
    from ipttrace.lab.parts import LabBackend
    from ipttrace_tui.screens.inject import Filled
    from ipttrace_tui.workbench import Workbench

OF_SCREENS = frozenset(
    {
        "inject",
        "repeat",
        "watch",
        "stop",
        "forget",
        "go",
        "save",
        "copy",
        "help",
        "command_palette",
        "rule",
    }
)
"""What the keys of the screens do that no dialogue has."""

COPIES = "copy the hops, or in the pane why a command"
SCREEN_KEYS = Binding.Group("screens", compact=True)


class Actions(Navigation):
    """Does what keys ask for that work on every screen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("i", "inject", "inject", tooltip="describe a probe and send it"),
        Binding("r", "repeat", "repeat", tooltip="repeat the last run"),
        Binding("w", "watch", "watch", tooltip="start the watch again that was ended"),
        Binding("x", "stop", "end the run", show=False),
        Binding("X", "forget", "forget the packets of earlier runs", show=False),
        Binding("1", "go('trace')", "trace screen", group=SCREEN_KEYS),
        Binding("2", "go('rules')", "rules screen", group=SCREEN_KEYS),
        Binding("3", "go('places')", "namespaces and labs", group=SCREEN_KEYS),
        Binding("4", "go('doctor')", "doctor screen", group=SCREEN_KEYS),
        Binding("5", "go('journey')", "one packet through the namespaces", group=SCREEN_KEYS),
        Binding("s", "save", "save", tooltip="save the trace, the picture or the packet"),
        Binding("y", "copy", "copy", tooltip=COPIES),
        Binding("colon,ctrl+p", "command_palette", "all commands", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, bench: Workbench | None, settings: Settings) -> None:
        super().__init__(bench, settings)
        self.history = History()
        self._offered: list[Offer] = []
        """What the command palette offers."""
        self.HORIZONTAL_BREAKPOINTS = BREAKPOINTS[settings.layout]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (23, "-short"), (34, "-tall"), (48, "-high")]

    @property
    def under_way(self) -> str:
        """What another run would end, and how it is had back; empty if there is nothing."""
        raise NotImplementedError

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether an action may be done: under a dialogue only leaving and moving may.

        Keys that were typed before a dialogue was there would otherwise still do what they do
        below it.
        """
        under = isinstance(self.screen, ModalScreen) and action in OF_SCREENS
        return False if under else super().check_action(action, parameters)

    # ---------------------------------------------------------------- runs

    def start(self, feed: Feed, title: str) -> None:
        """Run another feed, after the run that is under way has been ended."""
        raise NotImplementedError

    def start_lab(self, name: str, backend: LabBackend) -> None:
        """Build a lab and send its probes; the packets come to the trace screen."""
        self.action_go("trace")
        self.start(self.bench.lab(name, backend), f"lab {name}, {backend}")

    async def action_inject(self) -> None:
        """Open the form, filled with this session's last probe, or with where the user looks."""
        from ipttrace_tui.probe_form import FormValues
        from ipttrace_tui.screens.inject import InjectScreen

        self.history.load()
        here = self.selected_netns or ""
        values = self.history.newest or FormValues(trigger=self.settings.trigger, netns=here)
        form = InjectScreen(self.bench, self.history, values, here, self.under_way)
        await self.push_screen(form, self._inject)

    def _inject(self, filled: Filled | None) -> None:
        if filled is None:
            return
        self.history.add(filled.values)
        self.run_worker(self._remember, thread=True, name="history")
        self.action_go("trace")
        self.start(self.bench.probe(filled.spec), filled.values.title)

    def _remember(self) -> None:
        self.history.save()
        if notice := self.history.take_notice():
            self.call_from_thread(self.warn, notice)

    def notify(self, message: str, **options: Any) -> None:
        """Show a notice, unless one that says the same is up."""
        if all(each.message != message for each in self._notifications):
            super().notify(message, **options)

    def warn(self, text: str) -> None:
        """Show a notice."""
        self.notify(clean_text(text), severity="warning", markup=False)

    # ---------------------------------------------------------------- to take along

    async def action_save(self) -> None:
        """Ask where to save what."""
        from ipttrace_tui.saving import Shown
        from ipttrace_tui.screens.save import SaveScreen

        shown = Shown(self.title or "", self.shown, self._main.path, self._main.hop)
        await self.push_screen(SaveScreen(shown))

    def action_copy(self) -> None:
        """Give the hop list of the selected packet to the terminal's clipboard (OSC 52).

        In the pane why it is one command, never two: a shell would run both.
        """
        from ipttrace_tui.saving import hop_text

        if (path := self._main.path) is None:
            self.notify("no packet is selected")
            return
        command = self.focused.take_command() if isinstance(self.focused, WhyPane) else None
        if command is not None:
            self.copy_to_clipboard(command[0])
            self.notify(f"{command[1]} was given to the terminal")
            return
        self.copy_to_clipboard(hop_text(path))
        self.notify(f"the {len(path.hops)} hops of packet {path.id} were given to the terminal")

    # ---------------------------------------------------------------- help

    def action_help(self) -> None:
        """Show the help."""
        from ipttrace_tui.screens.help import HelpScreen

        self.push_screen(HelpScreen())

    def action_command_palette(self) -> None:
        """Open the command palette: what the keys do that work now."""
        self._offered = list(described_bindings(self.screen))
        super().action_command_palette()

    def get_system_commands(self, _screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Yield what the keys of the screen can do, and the themes."""
        for binding, node, words in self._offered:
            run = partial(self.run_action, binding.action, node)
            yield SystemCommand(words.title, f"key {words.keys}", run)
        yield SystemCommand("theme", "choose the colours", self.action_change_theme)
