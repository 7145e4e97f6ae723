"""The probes that were sent from the form, the newest first, kept from session to session."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipttrace.probe import PROTOCOLS
from ipttrace_tui.own_files import Unusable, read_own, state_home, write_own
from ipttrace_tui.probe_form import CONTAINED, FIELDS, LET_OUT, WAYS, FormValues
from ipttrace_tui.settings import TRIGGERS

MOST = 100
LONGEST = 200
"""Characters of a field; nothing that is sent is longer."""


class History:
    """A list in a file; a file that cannot be used is no history, and is said to be so."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or state_home() / "history.jsonl"
        self.entries: tuple[FormValues, ...] = ()
        self.newest: FormValues | None = None
        """The last one that this session has sent."""
        self._loaded = False
        self.notice = ""
        """What is to be said about the file."""

    def load(self) -> None:
        """Read what is there, unless that was done."""
        if self._loaded:
            return
        self._loaded = True
        try:
            text = read_own(self._path)
        except Unusable as error:
            self.notice = str(error)
            return
        self.entries = tuple(_read(text.splitlines()))[:MOST] if text else ()

    def take_notice(self) -> str:
        """Return what is to be said about the file, once."""
        notice, self.notice = self.notice, ""
        return notice

    def add(self, values: FormValues) -> None:
        """Put a probe first; the same one later in the list goes."""
        self.newest = values
        kept = [values, *(each for each in self.entries if each != values)]
        self.entries = tuple(kept[:MOST])

    def save(self) -> None:
        """Write the list; what stands in the way becomes the notice.

        What another screen has written meanwhile is kept behind what this one knows.
        """
        try:
            text = read_own(self._path)
            others = [each for each in _read((text or "").splitlines()) if each not in self.entries]
            lines = [json.dumps(asdict(each)) for each in [*self.entries, *others][:MOST]]
            write_own(self._path, "".join(f"{line}\n" for line in lines))
        except Unusable as error:
            self.notice = str(error)


def _read(lines: Iterable[str]) -> Iterable[FormValues]:
    for line in lines:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if (values := _values(value)) is not None:
            yield values


def _values(value: Any) -> FormValues | None:
    """Return the fields of one line, None if it is none of ours."""
    if not isinstance(value, dict) or not set(value) <= set(FIELDS):
        return None
    if not all(isinstance(each, str) and len(each) <= LONGEST for each in value.values()):
        return None
    values = FormValues(**value)
    known = values.protocol in PROTOCOLS and values.way in WAYS and values.trigger in TRIGGERS
    return values if known and values.containment in (CONTAINED, LET_OUT) else None
