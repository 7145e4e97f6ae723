"""What there is on this host to trace in and to start: namespaces with their interfaces."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PlaceKind(StrEnum):
    """How a namespace came to be, in the order in which they are listed."""

    HERE = "here"
    """The one that the tool runs in."""
    LAB = "lab"
    """Of a lab that this tool built."""
    NAMED = "named"
    """Of `ip netns`."""
    CONTAINER = "container"
    PROCESS = "process"
    """Of a process, without a name."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a namespace."""

    name: str
    addresses: tuple[str, ...] = ()
    """With the length of the prefix."""
    kind: str = ""
    """`veth`, `bridge` ...; empty for hardware and loopback."""
    up: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace that packets can be traced in."""

    name: str | None
    """As `--netns` takes it; None for the one that the tool runs in."""
    kind: PlaceKind
    interfaces: tuple[Interface, ...] = ()
    about: str = ""
    """What runs in it: its first process, or the lab that it belongs to."""
    alias: str = ""
    """The name that a lab's file gives it."""

    @property
    def title(self) -> str:
        """The name to show."""
        return self.alias or self.name or "this namespace"

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, without the lengths of their prefixes."""
        found = (each.partition("/")[0] for link in self.interfaces for each in link.addresses)
        return tuple(dict.fromkeys(found))
