"""A host that fits a bare save file: the interfaces, addresses and services that its rules name.

The rules say which interfaces there are (-i, -o), which networks are behind them (-i X -s NET, -o X
-d NET, MASQUERADE of NET), which addresses are the host's (-d A in INPUT, DNAT from A, SNAT to A)
and what it offers (--dport in INPUT, REDIRECT).  What they leave open gets documentation addresses.
Everything that was concluded is said, with the line that it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ipttrace.lab.derive_addresses import default_route, find_addresses
from ipttrace.lab.derive_services import listeners_of
from ipttrace.lab.derived_host import BRIDGES, Derived, Interface
from ipttrace.lab.host_state import LinkState, Snapshot
from ipttrace.lab.rule_facts import Facts, facts_of
from ipttrace.lab.save_file import SaveFile

MOST_INTERFACES = 200
NAME_BYTES = 15
OUTSIDE = ("wan", "ppp0", "eth0", "ens", "enp", "eno", "em1", "eth", "wlan")
"""How interfaces to the outside are called, the surest first."""


def derive(files: Sequence[SaveFile]) -> tuple[Snapshot, tuple[str, ...]]:
    """Return the host that fits the rules, without the rules, and what was concluded."""
    facts = [fact for file in files for fact in facts_of(file)]
    derived = Derived()
    _find_interfaces(derived, facts)
    derived.outside = _outside(derived, facts)
    versions = sorted({fact.version for fact in facts} or {4})
    for version in versions:
        own = [fact for fact in facts if fact.version == version]
        find_addresses(derived, own, version)
    routes = [default_route(derived, version) for version in versions]
    listeners = listeners_of(derived, facts)
    sysctls = _sysctls(derived, facts, versions)
    snapshot = Snapshot(
        links=tuple(_links(derived)),
        routes=tuple(routes),
        listeners=tuple(listeners),
        sysctls=sysctls,
    )
    return snapshot, tuple(derived.notes)


def _find_interfaces(derived: Derived, facts: Iterable[Facts]) -> None:
    patterns: dict[str, str] = {}
    for fact in facts:
        named = (fact.in_interface, fact.out_interface, fact.not_out)
        for name in filter(_is_name, filter(None, named)):
            if name.endswith("+"):
                patterns.setdefault(name[:-1], fact.place)
            else:
                derived.interfaces.setdefault(name, Interface(name, f"{fact.place} names it"))
        for name in filter(_is_name, fact.bridge_ports):
            derived.ports.setdefault(name.replace("+", "0"), fact.place)
    for prefix, place in patterns.items():
        if not any(name.startswith(prefix) for name in (*derived.interfaces, *derived.ports)):
            name = f"{prefix}0"[:NAME_BYTES]
            derived.interfaces[name] = Interface(name, f"it fits {prefix}+ of {place}")
    for name in list(derived.interfaces)[MOST_INTERFACES:]:
        derived.notes.append(f"interface {name} was left out: more than {MOST_INTERFACES}")
        del derived.interfaces[name]
    for name in derived.ports:
        derived.interfaces.pop(name, None)


def _is_name(name: str) -> bool:
    """Tell whether an interface can be called so; iptables refuses the rule if not."""
    plain = name.isprintable() and not re.search(r"[\s/:]", name)
    return plain and name not in (".", "..", "lo", "+") and len(name.encode()) <= NAME_BYTES


def _outside(derived: Derived, facts: Iterable[Facts]) -> str:
    """Return the interface that leads to everybody else."""
    for fact in facts:
        if fact.target in ("MASQUERADE", "SNAT") and fact.out_interface in derived.interfaces:
            return str(fact.out_interface)
    for prefix in OUTSIDE:
        for name in derived.interfaces:
            if name.startswith(prefix):
                return name
    for name in derived.interfaces:
        if not BRIDGES.match(name):
            return name
    derived.interfaces = {"eth0": Interface("eth0", "no rule names an outer one")} | (
        derived.interfaces
    )
    return "eth0"


def _sysctls(derived: Derived, facts: Iterable[Facts], versions: Iterable[int]) -> dict[str, str]:
    routed = [
        fact
        for fact in facts
        if "FORWARD" in fact.hooks or fact.target in ("MASQUERADE", "SNAT", "NETMAP")
    ]
    if not routed:
        return {}
    names = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
    derived.notes.append(f"it forwards: {routed[0].place} is about packets that pass through")
    return {names[version]: "1" for version in versions}


def _links(derived: Derived) -> Iterator[LinkState]:
    bridge = next((name for name in derived.interfaces if BRIDGES.match(name)), None)
    if derived.ports and bridge is None:
        bridge = "br0"
        derived.notes.append("br0 holds the bridge ports that rules name")
        yield LinkState("br0", kind="bridge")
    for name, interface in derived.interfaces.items():
        addresses = (*interface.addresses[4], *interface.addresses[6])
        kind = "bridge" if derived.ports and name == bridge else ""
        yield LinkState(name, kind=kind, addresses=addresses)
    for name, place in derived.ports.items():
        derived.notes.append(f"{name} is a port of {bridge}: {place} names it")
        yield LinkState(name, master=bridge)
