"""Finding a comment of ours in the kernel's bytes of a rule, table or chain.

It is plain text, ended by NUL, in each of its three homes: the match `comment` of ip_tables
(struct xt_comment_info), the same match inside nf_tables, and nft's user data (type, length, text).
What stands before it is no text: a revision, an attribute's type, or a length below 32.
"""

from __future__ import annotations

import re

from ipttrace.ruleset import TAG

NO_TEXT_BEFORE = rb"(?<![\x20-\x7e\x80-\xff])"
SESSION_LENGTH = 16
"""Characters of a session's name; a tag and its NUL stay below 32 bytes."""

_TAGGED = re.compile(NO_TEXT_BEFORE + TAG.encode() + rb"([a-z0-9]{1,%d})\0" % SESSION_LENGTH)


def holds(data: bytes, comment: str) -> bool:
    """Return whether `comment` (below 31 characters) is a whole comment in `data`."""
    return re.search(NO_TEXT_BEFORE + re.escape(comment.encode()) + b"\\0", data) is not None


def session_in(data: bytes) -> str | None:
    """Return the session whose tag is in `data`, None if none is."""
    found = _TAGGED.search(data)
    return found[1].decode() if found else None
