"""A host that fits a bare save file: the interfaces, addresses and services that its rules name.

The rules say which interfaces there are (-i, -o), which networks are behind them (-i X -s NET, -o X
-d NET, MASQUERADE of NET), which addresses are the host's (-d A in INPUT, DNAT from A, SNAT to A)
and what it offers (--dport in INPUT, REDIRECT).  What they leave open gets documentation addresses.
Everything that was concluded is said, with the line that it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ipttrace.lab.host_state import LinkState, ListenerState, RouteState, Snapshot
from ipttrace.lab.rule_facts import Facts, Network, facts_of
from ipttrace.lab.save_file import SaveFile
from ipttrace.netfilter import TableFamily

Address = IPv4Address | IPv6Address

MOST_LISTENERS = 300
MOST_INTERFACES = 200
MOST_NETWORKS = 8
"""Of one interface: what is named beyond them is reached by the default route."""
SHOWN = 40
"""Listeners that are named one by one."""
NAME_BYTES = 15
OUTSIDE = ("wan", "ppp0", "eth0", "ens", "enp", "eno", "em1", "eth", "wlan")
"""How interfaces to the outside are called, the surest first."""
BRIDGES = re.compile(r"(docker\d|br-|virbr|br\d|cni\d|lxcbr|lxdbr|vmbr|xenbr)")
STOPS = frozenset({"DROP", "REJECT", "LOG", "NFLOG", "ULOG", "RETURN", ""})
"""A network that is stopped, like that of a bogon list, need not be behind the interface."""
SPARE = {
    4: ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15"),
    6: ("2001:db8::/64", "2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:8000::/33"),
}
"""For documentation (RFC 5737, 3849), and for benchmarks (RFC 2544)."""
PREFIX = {4: 24, 6: 64}


@dataclass(slots=True)
class _Interface:
    name: str
    why: str
    addresses: dict[int, list[str]] = field(default_factory=lambda: {4: [], 6: []})

    def networks(self, version: int) -> list[Network]:
        return [ip_network(text, strict=False) for text in self.addresses[version]]


@dataclass(slots=True)
class _Derived:
    interfaces: dict[str, _Interface] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)
    """Ports of bridges, with the place that names them."""
    notes: list[str] = field(default_factory=list)
    outside: str = ""


def derive(files: Sequence[SaveFile]) -> tuple[Snapshot, tuple[str, ...]]:
    """Return the host that fits the rules, without the rules, and what was concluded."""
    facts = [fact for file in files for fact in facts_of(file)]
    derived = _Derived()
    _find_interfaces(derived, facts)
    derived.outside = _outside(derived, facts)
    versions = sorted({6 if file.family is TableFamily.IP6 else 4 for file in files})
    for version in versions:
        own = [fact for fact in facts if _version(fact, files) == version]
        _find_addresses(derived, own, version)
    routes = [_default_route(derived, version) for version in versions]
    listeners = _listeners(derived, facts, files)
    sysctls = _sysctls(derived, facts, versions)
    snapshot = Snapshot(
        links=tuple(_links(derived)),
        routes=tuple(routes),
        listeners=tuple(listeners),
        sysctls=sysctls,
    )
    return snapshot, tuple(derived.notes)


def _version(fact: Facts, files: Sequence[SaveFile]) -> int:
    family = next(file.family for file in files if file.source == fact.source)
    return 6 if family is TableFamily.IP6 else 4


# ---------------------------------------------------------------- interfaces


def _find_interfaces(derived: _Derived, facts: Iterable[Facts]) -> None:
    patterns: dict[str, str] = {}
    for fact in facts:
        named = (fact.in_interface, fact.out_interface, fact.not_out)
        for name in filter(_is_name, filter(None, named)):
            if name.endswith("+"):
                patterns.setdefault(name[:-1], fact.place)
            else:
                derived.interfaces.setdefault(name, _Interface(name, f"{fact.place} names it"))
        for name in filter(_is_name, fact.bridge_ports):
            derived.ports.setdefault(name.replace("+", "0"), fact.place)
    for prefix, place in patterns.items():
        if not any(name.startswith(prefix) for name in (*derived.interfaces, *derived.ports)):
            name = f"{prefix}0"[:NAME_BYTES]
            derived.interfaces[name] = _Interface(name, f"it fits {prefix}+ of {place}")
    for name in list(derived.interfaces)[MOST_INTERFACES:]:
        derived.notes.append(f"interface {name} was left out: more than {MOST_INTERFACES}")
        del derived.interfaces[name]
    for name in derived.ports:
        derived.interfaces.pop(name, None)


def _is_name(name: str) -> bool:
    """Tell whether an interface can be called so; iptables refuses the rule if not."""
    plain = name.isprintable() and not re.search(r"[\s/:]", name)
    return plain and name not in (".", "..", "lo", "+") and len(name.encode()) <= NAME_BYTES


def _outside(derived: _Derived, facts: Iterable[Facts]) -> str:
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
    derived.interfaces = {"eth0": _Interface("eth0", "no rule names an outer one")} | (
        derived.interfaces
    )
    return "eth0"


# ---------------------------------------------------------------- addresses


def _find_addresses(derived: _Derived, facts: Sequence[Facts], version: int) -> None:
    for network, name, fact in _behind(derived, facts):
        _add_network(derived, name, network, fact, version)
    for address, name, fact in _own(derived, facts):
        _add_own(derived, name, address, fact, version)
    for address, fact in _translated(facts):
        _add_target(derived, address, fact, version)
    used = [
        network for each in facts for network in (each.from_network, each.to_network) if network
    ]
    spare = _spare(version, used)
    inner = [name for name in derived.interfaces if name != derived.outside]
    for name in (derived.outside, *inner):
        interface = derived.interfaces[name]
        if not interface.addresses[version]:
            network = next(spare)
            _give(derived, interface, network, "no rule names its network", version)


def _behind(derived: _Derived, facts: Iterable[Facts]) -> Iterator[tuple[Network, str, Facts]]:
    """Yield the networks that rules let in or out by an interface, the surest first."""
    inner = [name for name in derived.interfaces if name != derived.outside]
    weak = []
    for fact in facts:
        if fact.target in STOPS:
            continue
        if fact.from_network and fact.in_interface in inner:
            yield fact.from_network, str(fact.in_interface), fact
        if fact.to_network and fact.out_interface in inner:
            yield fact.to_network, str(fact.out_interface), fact
        if fact.target in ("MASQUERADE", "SNAT") and fact.from_network:
            if fact.not_out in inner:
                yield fact.from_network, str(fact.not_out), fact
            else:
                weak.append(fact)
    for fact in weak:
        covered = any(
            network.overlaps(fact.from_network)  # type: ignore[arg-type]
            for each in derived.interfaces.values()
            for network in each.networks(fact.from_network.version)  # type: ignore[union-attr]
        )
        empty = [name for name in inner if not any(derived.interfaces[name].addresses.values())]
        if not covered and empty and fact.from_network:
            yield fact.from_network, empty[0], fact


def _add_network(derived: _Derived, name: str, network: Network, fact: Facts, version: int) -> None:
    interface = derived.interfaces[name]
    full = len(interface.addresses[version]) >= MOST_NETWORKS
    if (
        full
        or not _is_usable(network)
        or any(network.overlaps(each) for each in _all(derived, version))
    ):
        return
    if network.num_addresses < 4:
        address = network.network_address
        network = ip_network(f"{address}/{PREFIX[version]}", strict=False)
        if any(network.overlaps(each) for each in _all(derived, version)):
            return
        _give(derived, interface, network, f"{fact.place} names {address}", version, but=address)
        return
    _give(derived, interface, network, f"{fact.place} names {network}", version)


def _own(derived: _Derived, facts: Iterable[Facts]) -> Iterator[tuple[Address, str, Facts]]:
    """Yield the addresses that must be the host's own."""
    for fact in facts:
        here = fact.in_interface if fact.in_interface in derived.interfaces else derived.outside
        network = fact.to_network
        single = network is not None and network.num_addresses == 1
        offered = fact.table == "filter" and "INPUT" in fact.hooks and fact.target not in STOPS
        if network and single and (offered or fact.target in ("DNAT", "REDIRECT")):
            yield network.network_address, str(here), fact
        if fact.target == "SNAT" and fact.to and (address := _address(fact.to)):
            out = fact.out_interface
            yield address, str(out if out in derived.interfaces else derived.outside), fact


def _add_own(derived: _Derived, name: str, address: Address, fact: Facts, version: int) -> None:
    if address.version != version or not _is_usable(ip_network(address)):
        return
    held = [text for each in derived.interfaces.values() for text in each.addresses[version]]
    if any(text.split("/")[0] == str(address) for text in held):
        return
    for each in derived.interfaces.values():
        for network in each.networks(version):
            if address in network:
                _note_own(derived, each, f"{address}/{network.prefixlen}", fact, version)
                return
    interface = derived.interfaces[name]
    _note_own(derived, interface, f"{address}/{PREFIX[version]}", fact, version)


def _note_own(
    derived: _Derived, interface: _Interface, text: str, fact: Facts, version: int
) -> None:
    interface.addresses[version].append(text)
    derived.notes.append(f"{interface.name} has {text}: {fact.place} takes it for the host's own")


def _translated(facts: Iterable[Facts]) -> Iterator[tuple[Address, Facts]]:
    for fact in facts:
        if fact.target == "DNAT" and fact.to and (address := _address(fact.to)):
            yield address, fact


def _add_target(derived: _Derived, address: Address, fact: Facts, version: int) -> None:
    """Put what DNAT leads to behind an inner interface of which nothing is known."""
    if address.version != version or not _is_usable(ip_network(address)):
        return
    network = ip_network(f"{address}/{PREFIX[version]}", strict=False)
    if any(address in each or network.overlaps(each) for each in _all(derived, version)):
        return
    for name, interface in derived.interfaces.items():
        if name != derived.outside and not interface.addresses[version]:
            why = f"{fact.place} leads to {address}"
            _give(derived, interface, network, why, version, but=address)
            return


def _give(
    derived: _Derived,
    interface: _Interface,
    network: Network,
    why: str,
    version: int,
    *,
    but: Address | None = None,
) -> None:
    """Give the interface the first address of a network."""
    first = network.network_address + (1 if network.num_addresses > 2 else 0)
    address = first + 1 if first == but else first
    text = f"{address}/{network.prefixlen}"
    interface.addresses[version].append(text)
    derived.notes.append(f"{interface.name} ({interface.why}) gets {text}: {why}")


def _all(derived: _Derived, version: int) -> list[Network]:
    return [network for each in derived.interfaces.values() for network in each.networks(version)]


def _is_usable(network: Network) -> bool:
    first = network.network_address
    odd = first.is_loopback or first.is_multicast or first.is_unspecified or first.is_link_local
    single = network.num_addresses == 1
    ends = first.version == 4 and single and first.packed[-1] in (0, 255)
    return not odd and not ends and (single or network.prefixlen >= 8)


def _address(text: str) -> Address | None:
    """Return the address of `A`, `A:P`, `A-B:P`, `[A6]:P`."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if not text.startswith("[") and host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return ip_address(host.partition("-")[0])
    except ValueError:
        return None


def _spare(version: int, used: Sequence[Network]) -> Iterator[Network]:
    """Yield networks that no rule names."""
    for text in SPARE[version]:
        network = ip_network(text)
        for part in network.subnets(new_prefix=PREFIX[version]):
            if not any(part.overlaps(each) for each in used if each.prefixlen > 8):
                yield part


def _default_route(derived: _Derived, version: int) -> RouteState:
    outside = derived.interfaces[derived.outside]
    own = {text.split("/")[0] for text in outside.addresses[version]}
    network = outside.networks(version)[0]
    last = network.network_address + (min(network.num_addresses, 256) - 2)
    gateway = last if str(last) not in own else last - 1
    family = "ipv4" if version == 4 else "ipv6"
    derived.notes.append(f"the default route leads by {outside.name} to {gateway}")
    return RouteState(to="default", family=family, via=str(gateway), interface=outside.name)


# ---------------------------------------------------------------- what it offers


def _listeners(
    derived: _Derived, facts: Iterable[Facts], files: Sequence[SaveFile]
) -> list[ListenerState]:
    found: dict[tuple[str, str, int], ListenerState] = {}
    places: list[str] = []
    for fact in facts:
        offered = (
            fact.table == "filter"
            and "INPUT" in fact.hooks
            and (fact.target == "ACCEPT" or fact.to_chain)
        )
        ports = fact.ports if offered else _local_ports(derived, fact)
        for protocol in _protocols(fact) if ports else ():
            address = "::" if _version(fact, files) == 6 else "0.0.0.0"  # noqa: S104
            for port in ports:
                key = (protocol, address, port)
                if key not in found:
                    found[key] = ListenerState(protocol, address, port)
                    places.append(f"{protocol}/{port} (line {fact.line})")
        if offered and fact.odd_ports:
            odd = ", ".join(fact.odd_ports)
            derived.notes.append(f"{fact.place}: of {odd} only the ends, if any, have a listener")
    if places:
        more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
        derived.notes.append(f"listens on {', '.join(places[:SHOWN])}{more}")
    if len(found) > MOST_LISTENERS:
        derived.notes.append(f"of {len(found)} listeners the first {MOST_LISTENERS} are there")
    return list(found.values())[:MOST_LISTENERS]


def _protocols(fact: Facts) -> tuple[str, ...]:
    return (fact.protocol,) if fact.protocol in ("tcp", "udp") else ()


def _local_ports(derived: _Derived, fact: Facts) -> tuple[int, ...]:
    """Return the ports of this host that REDIRECT, or DNAT to an address of its own, leads to."""
    if fact.to is None:
        return fact.ports if fact.target == "REDIRECT" else ()
    text = fact.to
    if fact.target == "DNAT":
        address = _address(text)
        own = {
            each.split("/")[0]
            for i in derived.interfaces.values()
            for v in (4, 6)
            for each in i.addresses[v]
        }
        if address is None or (str(address) not in own and not address.is_loopback):
            return ()
        text = text.rpartition("]")[2].rpartition(":")[2] if ":" in text else ""
        if not text:
            return fact.ports
    elif fact.target != "REDIRECT":
        return ()
    first = text.partition("-")[0]
    return (int(first),) if first.isdecimal() and 1 <= int(first) <= 65535 else ()


def _sysctls(derived: _Derived, facts: Iterable[Facts], versions: Iterable[int]) -> dict[str, str]:
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


def _links(derived: _Derived) -> Iterator[LinkState]:
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
