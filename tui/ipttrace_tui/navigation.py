"""Which screens there are, how to go from one to another, and what is selected meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from textual.screen import Screen

from ipttrace.path import ChainHop, PacketPath
from ipttrace_tui.feed import Snapshot
from ipttrace_tui.screens.main import MainScreen
from ipttrace_tui.typing_ahead import TypingAhead

if TYPE_CHECKING:
    from ipttrace_tui.settings import Settings
    from ipttrace_tui.workbench import Workbench


def _rules() -> Screen[None]:
    from ipttrace_tui.screens.rules import RulesScreen

    return RulesScreen()


def _places() -> Screen[None]:
    from ipttrace_tui.screens.places import PlacesScreen

    return PlacesScreen()


def _doctor() -> Screen[None]:
    from ipttrace_tui.screens.doctor import DoctorScreen

    return DoctorScreen()


def _journey() -> Screen[None]:
    from ipttrace_tui.screens.journey import JourneyScreen

    return JourneyScreen()


class Navigation(TypingAhead):
    """Knows the screens and the selection; the trace screen is always the lowest one."""

    SCREENS: ClassVar[dict[str, Callable[[], Screen[Any]]]] = {
        "rules": _rules,
        "places": _places,
        "doctor": _doctor,
        "journey": _journey,
    }
    pace = 1.0
    """Seconds between two looks at what changes by itself."""

    def __init__(self, bench: Workbench | None, settings: Settings) -> None:
        super().__init__()
        from ipttrace_tui.no_workbench import NoWorkbench

        self.bench: Workbench = bench or NoWorkbench()
        self.settings = settings

    # ---------------------------------------------------------------- what is shown

    @property
    def _main(self) -> MainScreen:
        return next(screen for screen in self.screen_stack if isinstance(screen, MainScreen))

    @property
    def shown(self) -> Snapshot:
        """All that the trace screen shows."""
        raise NotImplementedError

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        raise NotImplementedError

    @property
    def paths(self) -> Sequence[PacketPath]:
        """All packets."""
        return self.shown.paths

    @property
    def selected_path(self) -> PacketPath | None:
        """The packet that is selected on the trace screen."""
        return self._main.path

    @property
    def selected_netns(self) -> str | None:
        """The namespace of the selected packet, else the one that is traced."""
        return self.selected_path.netns if self.selected_path else self.traced_netns

    @property
    def traced_netns(self) -> str | None:
        """The namespace that the run was asked to trace."""
        raise NotImplementedError

    # ---------------------------------------------------------------- between the screens

    def action_go(self, name: str) -> None:
        """Show a screen."""
        if name == "trace":
            while not isinstance(self.screen, MainScreen):
                self.pop_screen()
        elif self.screen is not self.get_screen(name):
            if name == "rules":
                self._visit_rules(self.selected_netns, None)
            self._show(name)

    def _show(self, name: str) -> None:
        if isinstance(self.screen, MainScreen):
            self.push_screen(name)
        else:
            self.switch_screen(name)

    def _visit_rules(self, netns: str | None, hop: ChainHop | None) -> None:
        from ipttrace_tui.screens.rules import RulesScreen

        screen = self.get_screen("rules")
        assert isinstance(screen, RulesScreen)
        screen.visit(netns, hop)

    def show_rules(self, netns: str | None) -> None:
        """Show the rules of a namespace."""
        self._visit_rules(netns, None)
        self._show("rules")

    def action_rule(self) -> None:
        """Show the rule of the selected hop in its chain."""
        path, index = self._main.path, self._main.hop
        hop = path.hops[index] if path is not None and index is not None else None
        if path is None or not isinstance(hop, ChainHop):
            self.notify("this hop is of no chain")
            return
        self._visit_rules(path.netns, hop)
        self._show("rules")

    def show_hop(self, hop: int) -> None:
        """Show a hop of the selected packet."""
        self.action_go("trace")
        if self._main.path is not None:
            self._main.select(self._main.path.id, hop)

    def show_packet(self, path: PacketPath) -> None:
        """Show a packet."""
        self.action_go("trace")
        self._main.select(path.id)
