"""What was read of a machine and of one of its namespaces, or why it could not be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ipttrace.netfilter import Backend, PacketFamily, TableFamily


@dataclass(frozen=True, slots=True)
class Unknown:
    """A source that could not be read."""

    reason: str
    hint: str = ""
    """What would help, where it is not privilege."""


class Presence(StrEnum):
    """Where a part of the kernel is."""

    BUILT_IN = "built in"
    LOADED = "loaded"
    LOADABLE = "loaded when needed"
    BLOCKED = "kept from loading"
    """By modprobe.d (an `install` line), or for good by kernel.modules_disabled."""
    ABSENT = "absent"


PRESENT = frozenset({Presence.BUILT_IN, Presence.LOADED})


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is installed."""

    backend: Backend | None = None
    """Which engine it edits, where its name leaves that open."""
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Tracefs:
    """The file system of the kernel's tracepoints."""

    supported: bool
    path: str | None = None
    """Where it is mounted."""
    refusal: str | None = None
    """Why nothing can be set up there."""


@dataclass(frozen=True, slots=True)
class Privileges:
    """What this process may do."""

    missing: tuple[str, ...] = ()
    """Capabilities that tracing needs and this process lacks."""
    first_user_namespace: bool = True
    may_unshare: bool = True
    """Whether ordinary users may make user namespaces."""
    host_root: bool = True
    """Whether the host's root started it, be it in a user namespace: its files are open to it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What all namespaces share."""

    release: str
    """The kernel's, as in `uname -r`."""
    software: Mapping[str, str]
    """Name to version of what runs this program."""
    programs: Mapping[str, Program]
    components: Mapping[str, Presence | Unknown]
    """By the module's name."""
    tracefs: Tracefs | Unknown
    privileges: Privileges
    tun: str | None = None
    """Why the TUN/TAP device cannot be opened."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table that is not ours; rules of ours are not counted."""

    backend: Backend
    family: TableFamily
    name: str
    rules: int = 0
    drops: tuple[str, ...] = ()
    """Base chains whose policy is DROP."""
    forwards: bool = False
    """Whether a chain at hook FORWARD has rules."""
    dormant: bool = False
    """Switched off as a whole (nft only)."""

    @property
    def decides(self) -> bool:
        """Whether it can do anything to a packet."""
        return not self.dormant and bool(self.rules or self.drops)


@dataclass(frozen=True, slots=True)
class Listener:
    """The program that holds an NFLOG group."""

    port: int
    """Its netlink port."""
    pid: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Interface:
    """Settings of one interface, or of `all`."""

    rp_filter: int = 0
    route_localnet: bool = False
    forwarding: bool = False
    """Of IPv4 packets that come in there; `all` only sets the others when it is written."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge, and what it hands to iptables and ip6tables whatever net.bridge.* say."""

    name: str
    families: frozenset[TableFamily] = frozenset()


Tables = tuple[Table, ...] | Unknown
Setting = int | Unknown | None
"""None: the kernel has no such setting here."""


@dataclass(frozen=True, slots=True)
class Interior:
    """What belongs to one network namespace."""

    owned: bool | Unknown
    """Whether its user namespace is ours or below ours, so that our capabilities count."""
    legacy: Tables
    nft: Tables
    loggers: Mapping[PacketFamily, str] | Unknown
    """Who gets legacy trace reports; `NONE` for nobody."""
    known_loggers: frozenset[str]
    listener: Listener | Unknown | None
    """The holder of NFLOG group 0."""
    settings: Mapping[str, Setting]
    """By the name that sysctl(8) uses."""
    interfaces: Mapping[str, Interface] | Unknown
    """With `all`, without `lo`."""
    bridges: tuple[Bridge, ...] | Unknown
    sessions: Mapping[str, int] | Unknown
    """Name to main process of the sessions at work; 0 for one that is not known."""
    leftovers: tuple[str, ...] | Unknown
    lock: str | None = None
    """Why the xtables lock cannot be opened."""
    no_way_out: str | None = None
    """Why the kernel log cannot stand in for an NFLOG group 0 that is held."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was read."""

    machine: Machine
    interior: Interior | Unknown
    netns: str | None = None
    """As the user named it."""
    enter: tuple[str, ...] = ()
    """The words before a command that is to run in that namespace."""
