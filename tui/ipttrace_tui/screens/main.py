"""The one screen: packets, the way of the selected one, its hops, and why."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen

from ipttrace.path import PacketPath
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.view_model import hop_rows, telling_hop
from ipttrace_tui.widgets.banner import Banner
from ipttrace_tui.widgets.flow_pane import FlowPane
from ipttrace_tui.widgets.hop_list import HopList
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.packet_list import PacketList
from ipttrace_tui.widgets.packet_pane import PacketPane
from ipttrace_tui.widgets.run_bar import RunBar
from ipttrace_tui.widgets.status_bar import StatusBar
from ipttrace_tui.widgets.why_pane import WhyPane


class MainScreen(Screen[None]):
    """Shows the newest snapshot; the selection is the only state of its own."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "pane", key_display="tab", tooltip="next pane"),
        Binding("shift+tab", "app.focus_previous", "pane before", show=False),
        Binding("right,n", "step(1)", "hop", key_display="←→", tooltip="step to the next hop"),
        Binding("left,p", "step(-1)", "step to the hop before", show=False),
    ]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._snapshot = Snapshot()
        self._packet: int | None = None
        self._hop: int | None = None

    def compose(self) -> ComposeResult:
        """Lay the panes out; app.tcss stacks them where the terminal is narrow."""
        yield RunBar(self._title)
        yield Banner()
        with Container(id="top"):
            yield PacketList()
            yield FlowPane()
        with Container(id="bottom"):
            yield HopList()
            with Container(id="details"):
                yield PacketPane()
                yield WhyPane()
        yield StatusBar()
        yield KeyBar()

    def on_mount(self) -> None:
        """Start in the packet list."""
        self.query_one(PacketList).focus()
        self.show(self._snapshot)

    @property
    def path(self) -> PacketPath | None:
        """The selected packet."""
        return None if self._packet is None else self._snapshot.paths[self._packet]

    @property
    def hop(self) -> int | None:
        """The selected hop's index."""
        return self._hop

    def show(self, snapshot: Snapshot) -> None:
        """Show `snapshot`; the same packet stays selected while it is there."""
        before = self.path
        self._snapshot = snapshot
        ids = [path.id for path in snapshot.paths]
        kept = before is not None and before.id in ids
        self._packet = ids.index(before.id) if before is not None and kept else (0 if ids else None)
        path = self.path
        if not kept or path is None or before is None or len(path.hops) != len(before.hops):
            self._hop = telling_hop(path) if path else None
        over = snapshot.state is not RunState.RUNNING
        self.query_one(RunBar).show(snapshot)
        self.query_one(Banner).show(snapshot)
        self.query_one(StatusBar).show(snapshot)
        self.query_one(PacketList).show(snapshot.paths, self._packet, over=over)
        self._show_path()

    def select(self, path_id: int, hop: int | None = None) -> None:
        """Select a packet by its id, at the hop that tells most unless one is named."""
        ids = [path.id for path in self._snapshot.paths]
        if path_id in ids:
            self._packet = ids.index(path_id)
            path = self._snapshot.paths[self._packet]
            self._hop = telling_hop(path) if hop is None else hop
            self.query_one(PacketList).cursor = self._packet
            self._show_path()

    def rename(self, title: str) -> None:
        """Say what is traced now."""
        self.query_one(RunBar).rename(title)

    def leave(self) -> None:
        """Say that the screen closes as soon as nothing is left behind."""
        self.query_one(RunBar).leave()

    @on(PacketList.Moved)
    def _packet_chosen(self, event: PacketList.Moved) -> None:
        event.stop()
        if isinstance(event.sender, HopList):
            self._hop = event.index
            self._show_hop()
            return
        self._packet = event.index
        self._hop = telling_hop(self._snapshot.paths[event.index])
        self._show_path()

    def action_step(self, step: int) -> None:
        """Go to the next or the previous hop, wherever the focus is."""
        self.query_one(HopList).action_move(step)

    def _show_path(self) -> None:
        path = self.path
        rows = hop_rows(path) if path else ()
        self.query_one(HopList).show(rows, self._hop, chosen=path is not None)
        self.query_one(WhyPane).show(path)
        self._show_hop()

    def _show_hop(self) -> None:
        self.query_one(FlowPane).show(self.path, self._hop)
        self.query_one(PacketPane).show(self.path, self._hop)
