"""The list of packets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from ipttrace.path import PacketPath
from ipttrace_tui.view_model import PacketRow, Tone, packet_row
from ipttrace_tui.widgets.row_list import RowList
from ipttrace_tui.widgets.toned import fitted, plain_text, tone


class PacketList(RowList):
    """One line a packet: who to whom, and its fate."""

    BORDER_TITLE = "packets"
    empty = "waiting for the first packet …"

    def __init__(self) -> None:
        super().__init__()
        self._paths: Sequence[PacketPath] = ()
        self._digits, self._protocol, self._fate = 1, 3, 11

    def show(self, paths: Sequence[PacketPath], cursor: int | None, *, over: bool) -> None:
        """Show these packets; `over` tells an empty run from one that has just begun."""
        self._paths = paths
        self.empty = "no packet was traced" if over else PacketList.empty
        self._digits = max((len(str(path.id)) for path in paths), default=1)
        self._protocol = min(5, max((len(path.packet.protocol) for path in paths), default=3))
        self._fate = 2 + max((len(path.outcome) for path in paths), default=9)
        self.border_subtitle = str(len(paths)) if paths else ""
        self.changed(cursor)

    def count(self) -> int:
        """Return the number of packets."""
        return len(self._paths)

    def line(self, index: int, width: int) -> Text:
        """Return a packet's line."""
        row = packet_row(self._paths[index])
        fate = fitted(f"{row.glyph} {row.outcome}", self._fate)
        head = f"{row.id:>{self._digits}} {row.protocol:<{self._protocol}} "
        room = width - len(head) - self._fate - 1
        text = plain_text(head, tone(self, Tone.MUTED))
        text.append(fitted(_way(row, room), room) + " ")
        text.append(fate, tone(self, row.tone))
        return text


def _way(row: PacketRow, room: int) -> str:
    return next((way for way in row.ways if len(way) <= room), row.ways[-1])
