"""The bridges of a namespace, and whether their frames meet the chains of IP (br_netfilter)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ipttrace.netfilter import PacketFamily
from ipttrace.system.route_netlink import RouteSocket

SETTINGS = Path("/proc/sys/net/bridge")
"""Of the reader's namespace; absent without br_netfilter."""
CALLS = {
    PacketFamily.IPV4: "bridge-nf-call-iptables",
    PacketFamily.IPV6: "bridge-nf-call-ip6tables",
}
IFLA_BR_NF_CALL = {PacketFamily.IPV4: 36, PacketFamily.IPV6: 37}
"""IFLA_BR_NF_CALL_IPTABLES, IFLA_BR_NF_CALL_IP6TABLES (uapi/linux/if_link.h)."""


@dataclass(frozen=True, slots=True)
class Bridges:
    """The bridges that have ports."""

    bridge_of: Mapping[str, str] = field(default_factory=dict)
    """Port to bridge, by name."""
    calling: Mapping[PacketFamily, frozenset[str]] = field(default_factory=dict)
    """Those whose frames meet the chains of IP."""

    @property
    def names(self) -> frozenset[str]:
        """The bridges."""
        return frozenset(self.bridge_of.values())

    def silent(self, family: PacketFamily) -> frozenset[str]:
        """Return the bridges whose frames pass IP's chains by."""
        return self.names - self.calling.get(family, frozenset())

    def calling_ports(self, family: PacketFamily) -> tuple[str, ...]:
        """Return the ports of the others."""
        silent = self.silent(family)
        return tuple(port for port, bridge in self.bridge_of.items() if bridge not in silent)


def find_bridges() -> Bridges:
    """Look in the calling thread's namespace."""
    with RouteSocket() as asked:
        links = asked.links()
    bridges = {link.index: link for link in links if link.kind == "bridge"}
    bridge_of = {link.name: bridges[link.master].name for link in links if link.master in bridges}
    if not bridge_of:
        return Bridges()
    calling = {
        family: frozenset(
            link.name
            for link in bridges.values()
            if _all_call(family) or any(link.data.get(IFLA_BR_NF_CALL[family], b""))
        )
        for family in PacketFamily
    }
    return Bridges(bridge_of, calling)


def _all_call(family: PacketFamily) -> bool:
    try:
        return (SETTINGS / CALLS[family]).read_text().strip() != "0"
    except OSError:
        return False
