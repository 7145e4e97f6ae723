"""Facts of a machine and a namespace where nothing is in the way of a trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ipttrace.checkup.facts import (
    Facts,
    Interface,
    Interior,
    Machine,
    Presence,
    Privileges,
    Program,
    Table,
    Tracefs,
)
from ipttrace.checkup.machine import PARTS
from ipttrace.netfilter import Backend, PacketFamily, TableFamily

PROGRAMS = {
    "iptables": Program(Backend.NFT, "1.8.9"),
    "ip6tables": Program(Backend.NFT, "1.8.9"),
    "iptables-legacy": Program(Backend.LEGACY, "1.8.9"),
    "iptables-nft": Program(Backend.NFT, "1.8.9"),
    "nft": Program(None, "1.0.6"),
}

SETTINGS = {
    "net.netfilter.nf_conntrack_count": 3,
    "net.netfilter.nf_conntrack_max": 1000,
    "net.netfilter.nf_conntrack_events": 2,
    "net.netfilter.nf_conntrack_log_invalid": 0,
    "net.netfilter.nf_log_all_netns": 0,
    "net.ipv4.ip_forward": 0,
    "net.ipv6.conf.all.forwarding": 0,
    "net.bridge.bridge-nf-call-iptables": 1,
    "net.bridge.bridge-nf-call-ip6tables": 1,
}

MACHINE = Machine(
    release="6.18.44",
    software={"ipttrace": "0.1.0", "Python": "3.11.2"},
    programs=PROGRAMS,
    components={part.name: Presence.BUILT_IN for part in PARTS},
    tracefs=Tracefs(supported=True, path="/sys/kernel/tracing"),
    privileges=Privileges(),
)

INTERIOR = Interior(
    owned=True,
    legacy=(),
    nft=(),
    loggers=dict.fromkeys(PacketFamily, "NONE"),
    known_loggers=frozenset({"nf_log_ipv4", "nf_log_ipv6", "nfnetlink_log"}),
    listener=None,
    settings=SETTINGS,
    interfaces={"all": Interface(), "eth0": Interface()},
    bridges=(),
    sessions={},
    leftovers=(),
)

NOBODY = Privileges(missing=("CAP_NET_ADMIN", "CAP_NET_RAW"), host_root=False)
USER_NAMESPACE = Privileges(first_user_namespace=False)


def facts(
    netns: str | None = None, enter: tuple[str, ...] = (), *, inside: bool = True, **changes: Any
) -> Facts:
    """Return the healthy facts with some changed: of the namespace, or (`inside` False) machine."""
    machine = MACHINE if inside else replace(MACHINE, **changes)
    interior = replace(INTERIOR, **changes) if inside else INTERIOR
    return Facts(machine, interior, netns, enter)


def table(
    backend: Backend,
    rules: int = 1,
    name: str = "filter",
    family: TableFamily = TableFamily.IP,
    **more: Any,
) -> Table:
    """Return a table that is the user's."""
    return Table(backend, family, name, rules, **more)
