"""The namespaces of this host, with their interfaces and what runs in them.

A thread enters one namespace after the other and asks the kernel there; nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from ipttrace.decode.text import clean_text
from ipttrace.diagnose.onward import OtherNamespace
from ipttrace.errors import IptTraceError
from ipttrace.inventory import Interface, Place, PlaceKind
from ipttrace.netfilter import PacketFamily
from ipttrace.system.addresses import addresses, read_link, rtnetlink
from ipttrace.system.containers import SHORT
from ipttrace.system.namespaces import HERE, Namespace
from ipttrace.system.neighbour_namespaces import candidates, described, inode_of

MOST = 200
"""Namespaces; a host with more has them for no reader."""

LabNames = Mapping[str, tuple[str, str]]
"""Real name of a lab's namespace to the lab and the name that the lab gives it."""


def read_places(labs: LabNames | None = None) -> tuple[Place, ...]:
    """Return this namespace, then the others that there are; `labs` tells which are of a lab.

    A namespace that vanishes meanwhile, or may not be entered, is left out or has no interfaces.
    """
    known = labs or {}
    found = [Place(None, PlaceKind.HERE, _interfaces(HERE))]
    inode = inode_of(HERE.path)
    seen = {inode} if inode is not None else set()
    with ExitStack() as files:
        for candidate in candidates(seen, files):
            if len(found) < MOST:
                found.append(_place(described(candidate.known_as), candidate.descriptor, known))
    return tuple(sorted(found, key=lambda place: list(PlaceKind).index(place.kind)))


def _place(other: OtherNamespace, descriptor: int, labs: LabNames) -> Place:
    interfaces = _interfaces(Namespace("other", Path(f"/proc/self/fd/{descriptor}")))
    runs = clean_text(other.process or "")
    if other.name is not None:
        if other.name in labs:
            lab, alias = labs[other.name]
            return Place(other.name, PlaceKind.LAB, interfaces, f"lab {lab}", alias)
        return Place(other.name, PlaceKind.NAMED, interfaces, runs)
    if other.container is not None:
        return Place(other.container[:SHORT], PlaceKind.CONTAINER, interfaces, runs)
    return Place(str(other.pid), PlaceKind.PROCESS, interfaces, runs)


def _interfaces(namespace: Namespace) -> tuple[Interface, ...]:
    with suppress(IptTraceError, OSError):
        return namespace.run(_read_interfaces)
    return ()


def _read_interfaces() -> tuple[Interface, ...]:
    """Read those of the calling thread's namespace."""
    with rtnetlink() as ipr:
        links = [read_link(link) for link in ipr.get_links()]
        owned = [each for family in PacketFamily for each in addresses(ipr, family)]
    return tuple(
        Interface(
            link.name,
            tuple(str(each.own) for each in owned if each.index == link.index),
            link.kind or "",
            link.up,
        )
        for link in links
    )
