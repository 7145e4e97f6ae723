"""The addresses of a host as its rules tell them, and documentation's where they do not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network

from ipttrace.lab.derived_host import STOPS, Address, Derived, Interface, address_of
from ipttrace.lab.host_state import RouteState
from ipttrace.lab.rule_facts import Facts, Network

MOST_NETWORKS = 8
"""Of one interface: what is named beyond them is reached by the default route."""
SPARE = {
    4: ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15"),
    6: ("2001:db8::/64", "2001:db8:1::/64", "2001:db8:2::/64", "2001:db8:8000::/33"),
}
"""For documentation (RFC 5737, 3849), and for benchmarks (RFC 2544)."""
PREFIX = {4: 24, 6: 64}


def find_addresses(derived: Derived, facts: Sequence[Facts], version: int) -> None:
    """Give every interface addresses of one IP version, from the rules of that version."""
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


def _behind(derived: Derived, facts: Iterable[Facts]) -> Iterator[tuple[Network, str, Facts]]:
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


def _add_network(derived: Derived, name: str, network: Network, fact: Facts, version: int) -> None:
    interface = derived.interfaces[name]
    full = len(interface.addresses[version]) >= MOST_NETWORKS
    if (
        full
        or not _is_usable(network)
        or any(network.overlaps(each) for each in derived.networks(version))
    ):
        return
    if network.num_addresses < 4:
        address = network.network_address
        network = ip_network(f"{address}/{PREFIX[version]}", strict=False)
        if any(network.overlaps(each) for each in derived.networks(version)):
            return
        _give(derived, interface, network, f"{fact.place} names {address}", version, but=address)
        return
    _give(derived, interface, network, f"{fact.place} names {network}", version)


def _own(derived: Derived, facts: Iterable[Facts]) -> Iterator[tuple[Address, str, Facts]]:
    """Yield the addresses that must be the host's own."""
    for fact in facts:
        here = fact.in_interface if fact.in_interface in derived.interfaces else derived.outside
        network = fact.to_network
        single = network is not None and network.num_addresses == 1
        offered = fact.table == "filter" and "INPUT" in fact.hooks and fact.target not in STOPS
        if network and single and (offered or fact.target in ("DNAT", "REDIRECT")):
            yield network.network_address, str(here), fact
        if fact.target == "SNAT" and fact.to and (address := address_of(fact.to)):
            out = fact.out_interface
            yield address, str(out if out in derived.interfaces else derived.outside), fact


def _add_own(derived: Derived, name: str, address: Address, fact: Facts, version: int) -> None:
    if address.version != version or not _is_usable(ip_network(address)):
        return
    if derived.holds(address):
        return
    for each in derived.interfaces.values():
        for network in each.networks(version):
            if address in network:
                _note_own(derived, each, f"{address}/{network.prefixlen}", fact, version)
                return
    interface = derived.interfaces[name]
    _note_own(derived, interface, f"{address}/{PREFIX[version]}", fact, version)


def _note_own(derived: Derived, interface: Interface, text: str, fact: Facts, version: int) -> None:
    interface.addresses[version].append(text)
    derived.notes.append(f"{interface.name} has {text}: {fact.place} takes it for the host's own")


def _translated(facts: Iterable[Facts]) -> Iterator[tuple[Address, Facts]]:
    for fact in facts:
        if fact.target == "DNAT" and fact.to and (address := address_of(fact.to)):
            yield address, fact


def _add_target(derived: Derived, address: Address, fact: Facts, version: int) -> None:
    """Put what DNAT leads to behind an inner interface of which nothing is known."""
    if address.version != version or not _is_usable(ip_network(address)):
        return
    network = ip_network(f"{address}/{PREFIX[version]}", strict=False)
    if any(address in each or network.overlaps(each) for each in derived.networks(version)):
        return
    for name, interface in derived.interfaces.items():
        if name != derived.outside and not interface.addresses[version]:
            why = f"{fact.place} leads to {address}"
            _give(derived, interface, network, why, version, but=address)
            return


def _give(
    derived: Derived,
    interface: Interface,
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


def _is_usable(network: Network) -> bool:
    first = network.network_address
    odd = first.is_loopback or first.is_multicast or first.is_unspecified or first.is_link_local
    single = network.num_addresses == 1
    ends = first.version == 4 and single and first.packed[-1] in (0, 255)
    return not odd and not ends and (single or network.prefixlen >= 8)


def _spare(version: int, used: Sequence[Network]) -> Iterator[Network]:
    """Yield networks that no rule names."""
    for text in SPARE[version]:
        network = ip_network(text)
        for part in network.subnets(new_prefix=PREFIX[version]):
            if not any(part.overlaps(each) for each in used if each.prefixlen > 8):
                yield part


def default_route(derived: Derived, version: int) -> RouteState:
    """Return the route to everybody else."""
    outside = derived.interfaces[derived.outside]
    own = {text.split("/")[0] for text in outside.addresses[version]}
    network = outside.networks(version)[0]
    last = network.network_address + (min(network.num_addresses, 256) - 2)
    gateway = last if str(last) not in own else last - 1
    family = "ipv4" if version == 4 else "ipv6"
    derived.notes.append(f"the default route leads by {outside.name} to {gateway}")
    return RouteState(to="default", family=family, via=str(gateway), interface=outside.name)
