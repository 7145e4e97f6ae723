"""The list of NFQUEUE queues that programs listen on (/proc/net/netfilter/nfnetlink_queue)."""

from __future__ import annotations


def decode_queues(text: str) -> frozenset[int]:
    """Return the numbers of the queues: the first column (seq_show in nfnetlink_queue.c)."""
    rows = (line.split() for line in text.splitlines())
    return frozenset(int(row[0]) for row in rows if row and row[0].isdecimal())
