"""One line of a check-up, and the words in which it says what to do."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum

from ipttrace.checkup.facts import Facts, Unknown
from ipttrace.decode.text import clean_text

SPELL = "unshare -Ur unshare -n"
"""The network namespace is made after its user's ids are mapped: only so do the tables of
/proc/net belong to that user (xt_proto_init in net/netfilter/x_tables.c)."""


class State(StrEnum):
    """How a fact stands to a trace."""

    OK = "ok"
    NOTE = "note"
    """A trace is right, but shows less or other than one might think."""
    PROBLEM = "problem"
    """A trace fails or is not whole, or the usual tools mislead."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact, judged; there is advice unless it is ok."""

    topic: str
    state: State
    text: str
    advice: str | None = None


def ok(topic: str, text: str) -> Finding:
    """Return what is as it should be."""
    return Finding(topic, State.OK, clean_text(text))


def note(topic: str, text: str, advice: str) -> Finding:
    """Return what is worth knowing."""
    return Finding(topic, State.NOTE, clean_text(text), clean_text(advice))


def problem(topic: str, text: str, advice: str) -> Finding:
    """Return what is in the way."""
    return Finding(topic, State.PROBLEM, clean_text(text), clean_text(advice))


class Adviser:
    """Writes commands so that this user can run them, and where they must run."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.privileges = facts.machine.privileges

    def here(self, *words: str) -> str:
        """Return a command that must run in the namespace."""
        return self._line([*self._facts.enter, *words])

    def setting(self, *assignments: str) -> str:
        """Return how a setting of the namespace is changed."""
        return self.here("sysctl", "-w", *assignments)

    def host(self, *words: str) -> str:
        """Return a command that only the root of the host can run."""
        if self.privileges.first_user_namespace:
            return self._line(words)
        return f"as the host's root: {shlex.join(words)}"

    def tool(self, command: str) -> str:
        """Return a command of ours for the namespace."""
        netns = [] if self._facts.netns is None else ["--netns", self._facts.netns]
        return self._line(["ipttrace", command, *netns])

    def unreadable(self, topic: str, what: str, unknown: Unknown) -> Finding:
        """Return that something could not be read."""
        advice = unknown.hint.removesuffix(".") or self._to_read()
        return note(topic, f"cannot tell {what}: {unknown.reason}", advice)

    def _to_read(self) -> str:
        if self.privileges.missing:
            return f"To see it, run as root: {self.tool('doctor')}"
        if not self.privileges.first_user_namespace:
            return f"Make the namespaces one after the other, then it can be read: {SPELL}"
        return "See it as root; the other findings hold without it"

    def _line(self, words: list[str] | tuple[str, ...]) -> str:
        sudo = ["sudo"] if self.privileges.missing else []
        return shlex.join([*sudo, *words])
