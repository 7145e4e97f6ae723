"""What makes iptables-restore refuse a rule, and what stands in for one that it refuses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from ipttrace.lab.complaints import Complaint, Key
from ipttrace.lab.save_file import Line

GAP_INTERFACE = "not-reproduced"
"""No packet comes from there."""
GAP_COMMENT = 100
NO_COMMENT = re.compile(r"[^A-Za-z0-9 .,:_/=]")
OUTGOING = ("OUTPUT", "POSTROUTING")

KEY_OPTIONS = {
    "-m": "match",
    "--match": "match",
    "-j": "target",
    "--jump": "target",
    "-g": "target",
    "--goto": "target",
    "--match-set": "set",
    "--add-set": "set",
    "--del-set": "set",
    "--map-set": "set",
}


def keys_of(words: Sequence[str]) -> frozenset[Key]:
    """Return the matches, targets and sets that a rule names."""
    pairs = pairwise(words)
    return frozenset(
        (KEY_OPTIONS[option], value) for option, value in pairs if option in KEY_OPTIONS
    )


def form_of(words: Sequence[str]) -> str:
    """Return a rule's options, and the names of its matches and its target."""
    named = {
        at + 1 for at, word in enumerate(words) if KEY_OPTIONS.get(word) in ("match", "target")
    }
    return " ".join(
        word for at, word in enumerate(words) if at in named or word.startswith("-") or word == "!"
    )


def reason_of(complaint: Complaint) -> str:
    """Return why a single rule was refused."""
    named = [reason for number, reason in complaint.lines.items() if number > 1]
    return next(iter(complaint.keys.values()), named[0] if named else complaint.text)


def gap_for(line: Line, reason: str) -> str:
    """Return a rule that matches nothing, for the place of one that was refused.

    An empty reason adds no comment.
    """
    way = "-o" if line.chain in OUTGOING else "-i"
    words = NO_COMMENT.sub(" ", f"line {line.number}: {reason}")[:GAP_COMMENT].strip()
    rule = f"-A {line.chain} {way} {GAP_INTERFACE}"
    return f'{rule} -m comment --comment "{words}"' if reason else rule
