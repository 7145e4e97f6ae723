"""IPv4 fragments that the kernel joins to one packet, on the way: ip_defrag in ip_fragment.c.

Where connections are tracked that is done before all tables but `raw` of nf_tables' own making;
else behind PREROUTING, and only of packets for this host.  The joined packet has the trace bit of
the first fragment, and goes on as it; IPv6's are joined behind INPUT, where no chain sees it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from ipttrace.packet import PacketSummary
from ipttrace.walk import Walk

_Key = tuple[str, str, str, int]


class Fragments:
    """The fragments on their way in one namespace."""

    def __init__(self) -> None:
        self._waiting: defaultdict[_Key, list[Walk]] = defaultdict(list)

    def note(self, walk: Walk) -> None:
        """Remember a packet that has just come, if it is a fragment."""
        packet, key = walk.packet, _key(walk.packet)
        if key is not None and (packet.more_fragments or packet.fragment_offset):
            self._waiting[key].append(walk)

    def join(self, packet: PacketSummary) -> Walk | None:
        """Return the first fragment of `packet`, which goes on as all of it.

        None if it is none that was joined.
        """
        key = _key(packet) if self._waiting else None
        if key is None or packet.more_fragments or packet.fragment_offset:
            return None
        parts = [walk for walk in self._waiting.pop(key, ()) if walk.fate is None]
        first = next((walk for walk in parts if walk.packet.fragment_offset == 0), None)
        for walk in parts:
            walk.whole = first if walk is not first else None
        return first

    def forget(self, gone: Collection[int]) -> None:
        """Forget the walks whose `id()` is in `gone`."""
        for key, walks in list(self._waiting.items()):
            self._waiting[key] = [walk for walk in walks if id(walk) not in gone]
            if not self._waiting[key]:
                del self._waiting[key]


def _key(packet: PacketSummary) -> _Key | None:
    """Return what all fragments of one packet have (RFC 791)."""
    if packet.family != "ipv4" or packet.ip_id is None:
        return None
    return packet.src, packet.dst, packet.protocol, packet.ip_id
