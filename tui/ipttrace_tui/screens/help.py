"""The keys of all screens, made from their bindings, the mouse, and the signs."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.screen import ModalScreen

from ipttrace_tui.key_words import KeyWords, bindings_of, key_words
from ipttrace_tui.view_model import Tone
from ipttrace_tui.widgets.text_pane import TextPane
from ipttrace_tui.widgets.toned import plain_text, tone

SIGNS = (
    ("● ○", "the packet was in this hook; it was not: may be left out"),
    ("━ ┏┓", "it went here: it met a rule or a policy of this table"),
    ("━ ┌┐", "it passed here, and nothing of this table reported"),
    ("┄ ┌┐", "it did not come here, or the table is not there"),
    ("(raw)", "no rules stand there; a box is only dimmed"),
    ("╔╗ [ ]", "the selected hop"),
    ("mangle 1", "rule 1 of the chain matched; no number: its policy"),
    ("fw/in 1", "rule 1 of chain in of nft's own table fw matched"),
    ("ct", "where connections are tracked"),
    ("✗", "here it ended"),
    ("?", "the last that is known of it"),
    ("0 → 1", "changed here"),
    ("+1", "the rule's counter rose by so much, by all traffic"),
    ("◆ hop 3", "the selected packet met this rule at its hop 3"),
    ("┌ ├ └", "one packet in several namespaces, in the order of its way"),
    ("reported", "the kernel said so of this packet"),
    ("inferred", "it follows from the rule and the next hop"),
)


MOUSE = (
    ("click", "select a line, do what a key of the bar does, go to a screen"),
    ("wheel", "scroll what is under it"),
    ("shift+drag", "mark text to copy, where the terminal has it so"),
)

LEAD = 18
"""Columns of a key or a sign."""


def sections() -> tuple[tuple[str, tuple[type[DOMNode], ...]], ...]:
    """Return the parts of the help: where keys work, and the classes that declare them."""
    from ipttrace_tui.actions import Actions
    from ipttrace_tui.app import IptTraceApp
    from ipttrace_tui.screens.compare import CompareScreen
    from ipttrace_tui.screens.full import FullScreen
    from ipttrace_tui.screens.inject import InjectScreen
    from ipttrace_tui.screens.main import MainScreen
    from ipttrace_tui.screens.places import PlacesScreen
    from ipttrace_tui.screens.rules import RulesScreen
    from ipttrace_tui.screens.save import NameField, SaveScreen
    from ipttrace_tui.widgets.chain_pane import ChainPane
    from ipttrace_tui.widgets.choice import Choice
    from ipttrace_tui.widgets.filter_line import FilterInput
    from ipttrace_tui.widgets.form_field import SendField
    from ipttrace_tui.widgets.hop_list import HopList
    from ipttrace_tui.widgets.journey_pane import LegList
    from ipttrace_tui.widgets.packet_list import PacketList
    from ipttrace_tui.widgets.place_lists import LabList, PlaceList
    from ipttrace_tui.widgets.row_list import RowList
    from ipttrace_tui.widgets.rule_tree import RuleTree

    return (
        ("everywhere", (Actions, IptTraceApp)),
        ("trace", (MainScreen, PacketList, FilterInput, HopList, ChainPane)),
        ("compare", (CompareScreen,)),
        ("lists and texts", (RowList, TextPane)),
        ("the other screens", (FullScreen,)),
        ("rules", (RuleTree, RulesScreen)),
        ("places", (PlaceList, LabList, PlacesScreen)),
        ("journey", (LegList,)),
        ("inject", (InjectScreen, SendField, Choice)),
        ("save", (NameField, SaveScreen)),
        ("help", (HelpScreen,)),
    )


def key_rows(kinds: tuple[type[DOMNode], ...]) -> list[KeyWords]:
    """Return what the keys of some classes do; keys that do the same share a line."""
    rows: dict[str, KeyWords] = {}
    for kind in kinds:
        for binding in bindings_of(kind):
            words = key_words(binding)
            before = rows.get(words.title)
            same = before is not None and words.keys not in before.keys
            keys = f"{before.keys} {words.keys}" if before is not None and same else words.keys
            rows[words.title] = KeyWords(keys, words.title)
    return list(rows.values())


class HelpText(TextPane):
    """Keys, the mouse, then signs."""

    BORDER_TITLE = "help"
    BORDER_SUBTITLE = "↑↓ scroll   esc closes"

    def draw(self) -> Text:
        """Return a table a screen, one of the mouse, and one of the signs."""
        text = plain_text()
        for title, kinds in sections():
            text.append(f"{title}\n", tone(self, Tone.TITLE))
            for row in key_rows(kinds):
                self._append(text, row.keys, row.title)
        for title, rows in (("mouse", MOUSE), ("signs", SIGNS)):
            text.append(f"{title}\n", tone(self, Tone.TITLE))
            for sign, meaning in rows:
                self._append(text, sign, meaning)
        return text

    def lead(self, line: str) -> int:
        """Return the columns of the keys or the sign."""
        return LEAD if line.startswith(" ") else 0

    def _append(self, text: Text, sign: str, meaning: str) -> None:
        text.append(f"  {sign:<15} ", tone(self, Tone.STRONG)).append(f"{meaning}\n")


class HelpScreen(ModalScreen[None]):
    """Lies over the other screens until a key closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark", "dismiss", "close the help"),
    ]

    def compose(self) -> ComposeResult:
        """Hold the help text."""
        yield HelpText()
