"""Finding a comment of ours in the kernel's bytes of a rule, table or chain.

It is plain text, ended by NUL, in each of its three homes: the match `comment` of ip_tables
(struct xt_comment_info), the same match inside nf_tables, and nft's user data (type, length, text).
In nf_tables, whose answers have no bytes left over, what stands before it is no text: a revision,
an attribute's type, or a length below 32.
"""

from __future__ import annotations

import re
import struct

from ipttrace.ruleset import TAG

NO_TEXT_BEFORE = rb"(?<![\x20-\x7e\x80-\xff])"
SESSION_LENGTH = 16
"""Characters of a session's name; a tag and its NUL stay below 32 bytes."""

_TAG = re.compile(rf"{TAG}([a-z0-9]{{1,{SESSION_LENGTH}}})")
_TAGGED = re.compile(NO_TEXT_BEFORE + TAG.encode() + rb"([a-z0-9]{1,%d})\0" % SESSION_LENGTH)


_MATCH = struct.Struct("=H29sB")
"""struct xt_entry_match: the size of the whole match, its name, its revision; then its data."""


def of_matches(data: bytes) -> str | None:
    """Return the comment in an entry's matches (`elems` of struct ipt_entry), None without one.

    Only the text itself is read: the kernel copies a name up to its NUL (xt_obj_to_user), and
    what follows is left from earlier uses of the memory, be it another rule's comment.
    """
    at = 0
    while at + _MATCH.size <= len(data):
        size, name, _ = _MATCH.unpack_from(data, at)
        if size < _MATCH.size:
            return None
        if name.partition(b"\0")[0] == b"comment":
            text = data[at + _MATCH.size : at + size].partition(b"\0")[0]
            return text.decode("ascii", "replace")
        at += size
    return None


def session_of(comment: str | None) -> str | None:
    """Return the session whose tag is this whole comment, None if it is nobody's."""
    found = _TAG.fullmatch(comment or "")
    return found[1] if found else None


def holds(data: bytes, comment: str) -> bool:
    """Return whether `comment` (below 31 characters) is a whole comment in `data`."""
    return re.search(NO_TEXT_BEFORE + re.escape(comment.encode()) + b"\\0", data) is not None


def session_in(data: bytes) -> str | None:
    """Return the session whose tag is in `data`, None if none is."""
    found = _TAGGED.search(data)
    return found[1].decode() if found else None
