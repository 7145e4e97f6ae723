"""A screen of panes, one of which may fill it for a while."""

from __future__ import annotations

from textual.containers import Container
from textual.screen import Screen

from ipttrace_tui.widgets.pane import Pane


class ZoomingScreen(Screen[None]):
    """Its panes stand in containers; app.tcss hides the others while one is zoomed."""

    @property
    def zoomed(self) -> bool:
        """Whether one pane fills the screen."""
        return self.has_class("-zoom")

    def action_zoom(self) -> None:
        """Let the pane that has the focus fill the screen, or give the others their place back."""
        if self.zoomed:
            self.query(".-zoomed").remove_class("-zoomed")
            self.query(".-holds").remove_class("-holds")
            self.remove_class("-zoom")
        elif isinstance(self.focused, Pane) and self.focused.parent is not None:
            self.focused.add_class("-zoomed")
            for each in self.query(Container):
                each.set_class(self.focused in each.children, "-holds")
            self.add_class("-zoom")
