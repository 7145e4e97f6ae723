"""The trace screen: packets, the way of the selected one, its hops, and why."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from ipttrace.path import PacketPath
from ipttrace.ruleset import Ruleset
from ipttrace_tui.chain_view import chain_view
from ipttrace_tui.feed import RunState, Snapshot
from ipttrace_tui.marks import LETTERS, Marks
from ipttrace_tui.messages import RulesRead
from ipttrace_tui.packet_filter import PacketFilter
from ipttrace_tui.packet_table import PacketTable
from ipttrace_tui.screens.zooming import ZoomingScreen
from ipttrace_tui.stale_rules import StaleRules
from ipttrace_tui.view_model import hop_rows, telling_hop
from ipttrace_tui.widgets.banner import Banner
from ipttrace_tui.widgets.chain_pane import ChainPane
from ipttrace_tui.widgets.filter_line import FilterLine
from ipttrace_tui.widgets.flow_pane import FlowPane
from ipttrace_tui.widgets.hop_list import HopList
from ipttrace_tui.widgets.key_bar import KeyBar
from ipttrace_tui.widgets.packet_list import PacketList
from ipttrace_tui.widgets.packet_pane import PacketPane
from ipttrace_tui.widgets.run_bar import RunBar
from ipttrace_tui.widgets.status_bar import StatusBar
from ipttrace_tui.widgets.why_pane import WhyPane

RULES_PACE = 5.0
"""Seconds between two looks whether the rules are still those that packets met."""


class MainScreen(ZoomingScreen):
    """Shows the newest snapshot; selection, filter and marks are the only state of its own."""

    PINNED_KEYS = frozenset({"inject", "watch", "screens"})
    """What the key bar shows also where it is short: how to go on from here."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "app.focus_next", "pane", key_display="tab", tooltip="next pane"),
        Binding("shift+tab", "app.focus_previous", "pane before", show=False),
        Binding("right,n", "step(1)", "hop", key_display="←→", tooltip="step to the next hop"),
        Binding("left,p", "step(-1)", "step to the hop before", show=False),
        Binding("slash", "filter", "filter", key_display="/", tooltip="show some packets only"),
        Binding("f", "freeze", "freeze", tooltip="keep newer packets out of the list"),
        Binding("m", "mark", "mark", tooltip="mark the packet for the comparison"),
        Binding("c", "compare", "compare", tooltip="compare the two marked packets"),
        Binding("z", "zoom", "zoom", tooltip="let the pane fill the screen, or end that"),
        Binding("escape", "back", "end zoom or filter", show=False),
    ]

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._snapshot = Snapshot()
        self._table = PacketTable()
        self._path: PacketPath | None = None
        self._hop: int | None = None
        self._marks = Marks()
        self._stale = StaleRules(self)

    def compose(self) -> ComposeResult:
        """Lay the panes out; app.tcss stacks them where the terminal is narrow."""
        yield RunBar(self._title)
        yield Banner()
        yield FilterLine()
        with Container(id="top"):
            yield PacketList()
            yield FlowPane()
        with Container(id="bottom"):
            yield HopList()
            yield ChainPane()
            yield PacketPane()
            yield WhyPane()
        yield StatusBar()
        yield KeyBar()

    def on_mount(self) -> None:
        """Start in the packet list."""
        self.query_one(PacketList).moved = self._take_row
        self.query_one(HopList).moved = self._take_hop
        self.set_focus(self.query_one(PacketList))
        self.show(self._snapshot)
        self.set_interval(RULES_PACE, self.look_at_rules)

    # ---------------------------------------------------------------- what is looked at

    @property
    def path(self) -> PacketPath | None:
        """The selected packet."""
        return self._path

    @property
    def hop(self) -> int | None:
        """The selected hop's index."""
        return self._hop

    @property
    def table(self) -> PacketTable:
        """The packets of the list."""
        return self._table

    @property
    def rules(self) -> Ruleset | None:
        """The rules that the selected packet met."""
        path = self._path
        return self._snapshot.rulesets.get(path.netns) if path is not None else None

    def show(self, snapshot: Snapshot) -> None:
        """Show `snapshot`; the same packet stays selected while it is there."""
        self._snapshot = snapshot
        grown = self._table.use(snapshot.paths)
        self._table.advance()
        self._select_newest()
        self.query_one(RunBar).show(snapshot)
        self.query_one(Banner).show(snapshot)
        self._show_list(anew=not grown)
        self._show_selected()
        self._say_status()

    def _select_newest(self) -> None:
        """Select the last packet where the list follows them, the first where there was none."""
        if self.query_one(PacketList).follows and len(self._table):
            self._table.select_row(len(self._table) - 1)
        elif self._table.path is None and len(self._table):
            self._table.select_row(0)

    def select(self, path_id: int, hop: int | None = None) -> None:
        """Select a packet by its id, at the hop that tells most unless one is named."""
        if not self._table.select_id(path_id):
            return
        self.query_one(PacketList).follows = False
        self.query_one(PacketList).cursor = self._table.cursor
        self._show_selected()
        if hop is not None:
            self._hop = hop
            self._show_path()

    def rename(self, title: str) -> None:
        """Say what is traced now."""
        self.query_one(RunBar).rename(title)

    def leave(self) -> None:
        """Say that the screen closes as soon as nothing is left behind."""
        self.query_one(RunBar).leave()

    # ---------------------------------------------------------------- moving

    def _take_row(self) -> None:
        """Select the packet at the cursor of the list."""
        row = self.query_one(PacketList).cursor
        if row is not None and row < len(self._table):
            self._table.select_row(row)
            self._show_selected()

    def _take_hop(self) -> None:
        """Select the hop at the cursor of the list."""
        self._hop = self.query_one(HopList).cursor
        self._show_hop()

    def action_step(self, step: int) -> None:
        """Go to the next or the previous hop, wherever the focus is."""
        self.query_one(HopList).action_move(step)

    # ---------------------------------------------------------------- filter and freeze

    async def action_filter(self) -> None:
        """Write into the filter line."""
        await self.query_one(FilterLine).edit(self._table.known)

    @on(FilterLine.Wanted)
    def _use_filter(self, event: FilterLine.Wanted) -> None:
        event.stop()
        self._filter(event.filter)
        if event.done:
            self.set_focus(self.query_one(PacketList))

    def _filter(self, wanted: PacketFilter) -> None:
        self._table.use_filter(wanted)
        self._look_on()
        self._show_list(anew=True)

    def _look_on(self) -> None:
        """Look at the next packets; the screen gets its turn between two strides."""
        self._table.advance()
        if self._table.cursor is None and len(self._table):
            self._table.select_row(0)
        self._select_newest()
        self._show_selected()
        if not self._table.done:
            self._show_list(anew=False)
            self.set_timer(0.001, self._look_further)

    def _look_further(self) -> None:
        self._look_on()
        self._show_list(anew=False)

    def action_freeze(self) -> None:
        """Keep newer packets out of the list, or let in what came meanwhile."""
        self._table.freeze(on=not self._table.frozen)
        self._look_on()
        self._show_list(anew=True)
        self._say_status()

    # ---------------------------------------------------------------- compare

    def action_mark(self) -> None:
        """Mark the selected packet, or take its mark away; the third one drives the first out."""
        if self._path is not None:
            self._marks.turn(self._path.id)
            self.query_one(PacketList).mark(self._marks.letters)

    def action_compare(self) -> None:
        """Show where the ways of two packets part: the marked ones, or one of them and this."""
        from ipttrace_tui.screens.compare import CompareScreen

        numbers = self._marks.compared(self._path.id if self._path is not None else None)
        paths = [path for each in numbers if (path := self._table.path_of(each)) is not None]
        if len(paths) < len(LETTERS):
            self.notify("mark two packets with m, or one and select another")
            return
        self.app.push_screen(CompareScreen(paths[0], paths[1]))

    def action_back(self) -> None:
        """End the zoom, else the filter."""
        if self.zoomed:
            self.action_zoom()
        elif self._table.filter:
            self.query_one(FilterLine).clear()

    # ---------------------------------------------------------------- stale rules

    def look_at_rules(self) -> None:
        """Ask in a worker whether the selected packet's rules still stand."""
        if self.is_current and self._path is not None:
            self._stale.ask(self._path.netns)

    @on(RulesRead)
    def _rules_read(self, event: RulesRead) -> None:
        event.stop()
        self._stale.take(event)
        self._say_status()

    # ---------------------------------------------------------------- showing

    def _show_list(self, *, anew: bool) -> None:
        over = self._snapshot.state is not RunState.RUNNING
        self.query_one(PacketList).show(self._table, over=over, anew=anew)
        self.query_one(FilterLine).show(self._table)

    def _show_selected(self) -> None:
        """Show the selected packet, if it is another one, or has become another."""
        before, path = self._path, self._table.path
        if path is before and path is not None:
            return
        self._path = path
        same = before is not None and path is not None and before.id == path.id
        if not same or before is None or path is None or len(path.hops) != len(before.hops):
            self._hop = telling_hop(path) if path else None
        self._show_path()
        self._say_status()

    def _show_path(self) -> None:
        path = self._path
        rows = hop_rows(path) if path else ()
        self.query_one(HopList).show(rows, self._hop, chosen=path is not None)
        self.query_one(WhyPane).show(path)
        self._show_hop()

    def _show_hop(self) -> None:
        path, hop, rules = self._path, self._hop, self.rules
        self.query_one(FlowPane).show(path, hop, rules)
        self.query_one(ChainPane).show(chain_view(path, hop, rules))
        self.query_one(PacketPane).show(path, hop)
        self.query_one(HopList).cursor = hop

    def _say_status(self) -> None:
        doubt = self._stale.doubt(self._path)
        self.query_one(StatusBar).show(self._snapshot, self._table, doubt)
