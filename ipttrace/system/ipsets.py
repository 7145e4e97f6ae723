"""Builds ipsets in the calling thread's namespace; there is no need of the program ipset."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ipttrace.errors import KernelError
from ipttrace.lab.ipsets import IpSet, IpSets, port_of
from ipttrace.lab.missing import Missing

FAMILY = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
REASONS = {
    4097: "the kernel speaks another version of the protocol",
    4098: "the kernel has no such type of set",
    4099: "the kernel's module for it cannot be loaded",
    4352: "the set is full",
}
"""IPSET_ERR_* (uapi/linux/netfilter/ipset/ip_set.h)."""


def build_ipsets(sets: Iterable[IpSet]) -> None:
    """Make the sets with their entries; raises KernelError."""
    from pyroute2 import IPSet

    wanted = list(sets)
    if not wanted:
        return
    with IPSet() as ipset:
        for each in wanted:
            _try(f"make ipset {each.name}", lambda each=each: _create(ipset, each))
        for each in wanted:
            for entry in each.entries:
                _try(
                    f"add {entry} to ipset {each.name}",
                    lambda each=each, entry=entry: _add(ipset, each, entry),
                )


def try_ipsets(sets: IpSets) -> IpSets:
    """Build what can be built; return that, and what the kernel refuses."""
    from pyroute2 import IPSet

    taken = IpSets()
    if not sets.sets:
        return taken
    with IPSet() as ipset:
        for each in sets.sets.values():
            try:
                _try("make it", lambda each=each: _create(ipset, each))
            except KernelError as error:
                taken.missing += [Missing(line, error.message, "ipset") for line in each.lines()]
            else:
                taken.sets[each.name] = replace(each, entries=[])
        for each in taken.sets.values():
            for entry in sets.sets[each.name].entries:
                try:
                    _try("add it", lambda each=each, entry=entry: _add(ipset, each, entry))
                    each.entries.append(entry)
                except KernelError as error:
                    text = f"add {each.name} {entry}"
                    taken.missing.append(Missing(text, error.message, "ipset"))
    return taken


def _create(ipset: Any, wanted: IpSet) -> None:
    options: dict[str, Any] = {"family": FAMILY[wanted.family]}
    if wanted.type == "list:set":
        options = {"family": socket.AF_UNSPEC}
    elif wanted.maxelem is not None:
        options["maxelem"] = wanted.maxelem
    ipset.create(wanted.name, stype=wanted.type, **options)


def _add(ipset: Any, wanted: IpSet, entry: str) -> None:
    from pyroute2.ipset import PortEntry

    values: list[Any] = entry.split(",")
    for at, part in enumerate(wanted.parts):
        if part == "port":
            protocol, port = port_of(values[at])
            values[at] = PortEntry(port, protocol=protocol)
    whole = values[0] if len(values) == 1 else tuple(values)
    family = socket.AF_UNSPEC if wanted.type == "list:set" else FAMILY[wanted.family]
    ipset.add(wanted.name, whole, family=family, etype=",".join(wanted.parts))


def _try(tried: str, function: Any) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        function()
    except NetlinkError as error:
        code = int(error.code)
        reason = REASONS.get(code) or (str(error.args[1]) if len(error.args) > 1 else str(error))
        raise KernelError(f"cannot {tried}: {reason}") from error
    except OSError as error:
        raise KernelError(f"cannot {tried}: {error.strerror or error}") from error
