"""The rules of a namespace as a tree, counting, with what the selected packet met marked."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from ipttrace.errors import IptTraceError
from ipttrace.path import ChainHop
from ipttrace_tui.asking import Answered
from ipttrace_tui.rule_rows import Key, Readings, RuleRow, key_of, matching, rows
from ipttrace_tui.screens.full import FullScreen
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.rule_tree import RuleTree
from ipttrace_tui.widgets.said_line import SaidLine


class RulesScreen(FullScreen):
    """Follows the selected packet into its namespace, unless another one was chosen."""

    NAME = "rules"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search", key_display="/", tooltip="search the rules"),
        Binding("n", "found(1)", "next", tooltip="the next line that was found", show=False),
        Binding("N", "found(-1)", "the line before that was found", show=False),
        Binding("m", "met(1)", "met", tooltip="the next rule that the packet met"),
        Binding("escape", "back", "end the search, else back to the trace screen", show=False),
        Binding("M", "met(-1)", "the rule before that the packet met", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._readings = Readings()
        self._netns: str | None = None
        self._folded: frozenset[Key] = frozenset()
        self._rows: list[RuleRow] = []
        self._found: list[int] = []
        self._wanted: ChainHop | None = None
        """The hop whose rule is to be selected as soon as the rules are read."""
        self._error: IptTraceError | None = None

    def body(self) -> ComposeResult:
        """Lay out the tree, the selected line in full, and the search."""
        yield RuleTree()
        yield SaidLine()
        yield Input(placeholder="search the rules", compact=True, id="search")

    def on_mount(self) -> None:
        """Start in the tree."""
        super().on_mount()
        self.query_one("#search").display = False
        self.set_focus(self.query_one(RuleTree))

    def visit(self, netns: str | None, hop: ChainHop | None = None) -> None:
        """Show the rules of a namespace, and go to the rule of a hop."""
        if netns != self._netns:
            self._readings, self._error = Readings(), None
        self._netns, self._wanted = netns, hop

    def look_again(self) -> None:
        """Read the rules and their counters."""
        self.ask("rules", partial(self._read, self._netns))
        self._draw()

    def _read(self, netns: str | None) -> tuple[str | None, object]:
        return netns, self.work.bench.read_rules(netns)

    @on(Answered)
    def _take(self, event: Answered) -> None:
        self._error = event.error
        if event.error is None:
            netns, (time, ruleset) = event.value
            if netns != self._netns:
                self.look_again()
                return
            self._readings = self._readings.then(ruleset, time)
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        tree = self.query_one(RuleTree)
        before = tree.row.key if tree.row else None
        path = self.work.selected_path
        same = path is not None and path.netns == self._netns
        if self._wanted is not None:
            self._unfold(key_of(self._wanted, self._readings.ruleset))
        self._rows = rows(self._readings, path if same else None, self._folded)
        if self._wanted is not None and self._readings.ruleset.chains:
            before = key_of(self._wanted, self._readings.ruleset) or before
            self._wanted = None
        keys = [row.key for row in self._rows]
        cursor = keys.index(before) if before in keys else (0 if keys else None)
        self._found = matching(self._rows, self.query_one("#search", Input).value)
        tree.empty = "reading the rules …" if not self._readings.time else "no rules here"
        tree.show(self._rows, cursor, self._folded, self._found)
        where = self._netns or "this namespace"
        packet = f", packet {path.id}" if path is not None and same else ""
        marked = f", what packet {path.id} met is marked" if path is not None and same else ""
        self.subject(f"namespace {where}{marked}", f"{where}{packet}", where)
        self._say()

    def _unfold(self, key: Key | None) -> None:
        if key is not None:
            above = {key[:length] for length in range(1, len(key))}
            self._folded = self._folded - above

    @on(RowList.Moved)
    def _say(self) -> None:
        """Say the selected line in full, or what stands in the way of reading."""
        said = self.query_one(SaidLine)
        row = self.query_one(RuleTree).row
        if self._error is not None:
            said.say(f"✗ {self._error}", Tone.BAD)
        else:
            said.say(row.full if row else "")

    @on(RuleTree.Fold)
    def _fold(self, event: RuleTree.Fold) -> None:
        self._folded = self._folded ^ {event.row.key}
        self._draw()

    @on(RuleTree.HopWanted)
    def _go_to_hop(self, event: RuleTree.HopWanted) -> None:
        if event.row.met is None:
            self.notify("the selected packet did not meet this rule")
            return
        self.work.show_hop(event.row.met.hop)

    def action_search(self) -> None:
        """Open the search."""
        line = self.query_one("#search", Input)
        line.display = True
        self.set_focus(line)

    @on(Input.Changed)
    def _find(self) -> None:
        self._draw()

    @on(Input.Submitted)
    def _search_done(self) -> None:
        self.set_focus(self.query_one(RuleTree))
        if not self.query_one("#search", Input).value:
            self.query_one("#search").display = False
        elif not self._found:
            self.notify("nothing found; lines below a folded one are not searched")
        else:
            self.action_found(1)

    def action_back(self) -> None:
        """End the search; without one go back to the trace screen."""
        line = self.query_one("#search", Input)
        if line.display:
            line.value, line.display = "", False
            self.set_focus(self.query_one(RuleTree))
        else:
            self.work.action_go("trace")

    def action_found(self, step: int) -> None:
        """Go to the next or the previous line that was found."""
        self._next(self._found, step)

    def action_met(self, step: int) -> None:
        """Go to the next or the previous rule that the packet met, in the order of its way."""
        hops = {row.met.hop: index for index, row in enumerate(self._rows) if row.met}
        if not hops:
            self.notify("the selected packet met no rule in sight")
            return
        way = [hops[hop] for hop in sorted(hops)]
        tree = self.query_one(RuleTree)
        if tree.cursor in way:
            tree.go(way[(way.index(tree.cursor) + step) % len(way)])
        else:
            self._next(sorted(way), step)

    def _next(self, lines: list[int], step: int) -> None:
        tree = self.query_one(RuleTree)
        here = -1 if tree.cursor is None else tree.cursor
        if step > 0:
            ahead = [index for index in lines if index > here] or lines[:1]
        else:
            ahead = [index for index in lines if index < here][-1:] or lines[-1:]
        if ahead:
            tree.go(ahead[0])
