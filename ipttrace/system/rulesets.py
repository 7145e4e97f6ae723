"""Reading the rules of one namespace, with the tools' own words for them.

Reading changes nothing: a legacy table that does not exist yet is not asked for, because to ask
is to make it (xt_find_table_lock in net/netfilter/x_tables.c).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipttrace.decode.iptables_save import decode_iptables_save
from ipttrace.decode.nft_list import decode_nft_list, merge_nft
from ipttrace.errors import NotSupportedError
from ipttrace.netfilter import Backend, PacketFamily, TableFamily
from ipttrace.ruleset import OWN_TABLE, Ruleset
from ipttrace.system import commands, legacy_rules, nft_rules
from ipttrace.system.commands import Running
from ipttrace.system.namespaces import Namespace
from ipttrace.system.nft_netlink import NftSocket
from ipttrace.system.route_netlink import bridge_ports
from ipttrace.system.rule_state import NamespaceRuleState

SHARED = frozenset({TableFamily.INET, TableFamily.BRIDGE, TableFamily.NETDEV})
"""Families of tables that see packets of both IP versions."""

CONNTRACK_COUNT = Path("/proc/sys/net/netfilter/nf_conntrack_count")
"""Of the reader's namespace; to ask over netlink would load conntrack where it is not in use."""

LEGACY_NAMES = Path("/proc/thread-self/net/ip_tables_names")

HIDDEN = (
    "rules of iptables-legacy in {namespace} are not shown: cannot read {path}: {error}. "
    "In a user's namespaces, make one after the other: unshare -Ur unshare -n"
)
"""xt_proto_init gives the file to the root of the user namespace, if it has one by then."""


@dataclass(frozen=True, slots=True)
class Present:
    """Which engines have tables in a namespace."""

    legacy: frozenset[PacketFamily]
    nft: frozenset[TableFamily]


class NamespaceRules:
    """The RulesetReader of one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def watch(self) -> NamespaceRuleState:
        """Return what knows whether they are changed."""
        return NamespaceRuleState(self._namespace)

    def read(self, family: PacketFamily | None = None) -> Ruleset:
        """Return the rules that see packets of `family`, or all."""
        families = tuple(PacketFamily) if family is None else (family,)
        there = self._namespace.run(present)
        legacy = {f: self._legacy(f) for f in families if f in there.legacy}
        saved = {f: self._saved(f) for f in families if f.table_family in there.nft}
        listed = self._listed() if there.nft else None
        ruleset = Ruleset()
        for of, running in legacy.items():
            ruleset |= decode_iptables_save(running.output(), Backend.LEGACY, of.table_family)
        return ruleset | self._nft(families, saved, listed)

    def _nft(
        self,
        families: Sequence[PacketFamily],
        saved: Mapping[PacketFamily, Running | None],
        listed: Running | None,
    ) -> Ruleset:
        texts = Ruleset()
        for family, running in saved.items():
            if running is not None:
                text = running.output()
                texts |= decode_iptables_save(text, Backend.NFT, family.table_family)
        if listed is None:
            return texts
        wanted = SHARED | {family.table_family for family in families}
        merged = merge_nft(texts, decode_nft_list(listed.output()))
        return Ruleset(
            {ref: chain for ref, chain in merged.chains.items() if ref.table_family in wanted}
        )

    def backends(self, family: PacketFamily | None) -> frozenset[Backend]:
        """Return the backends with tables for `family`, or any: where a raw trigger is to stand.

        nf_tables where neither has any, ip_tables on a kernel without it.
        """
        there = self._namespace.run(present)
        families = tuple(PacketFamily) if family is None else (family,)
        found = {Backend.LEGACY} if there.legacy & set(families) else set()
        if there.nft & (SHARED | {each.table_family for each in families}):
            found.add(Backend.NFT)
        if found:
            return frozenset(found)
        has_nft = self._namespace.run(nft_rules.available)
        return frozenset({Backend.NFT if has_nft else Backend.LEGACY})

    def hidden(self) -> str | None:
        """Return what of the rules this process may not see, and what to do; None if nothing."""
        try:
            self._namespace.run(LEGACY_NAMES.read_bytes)
        except PermissionError as error:
            return HIDDEN.format(namespace=self._namespace, path=LEGACY_NAMES, error=error.strerror)
        except OSError:
            return None
        return None

    def conntrack_entries(self) -> int:
        """Return how many connections are tracked here; 0 without conntrack in the kernel."""
        try:
            return int(self._namespace.run(CONNTRACK_COUNT.read_text))
        except OSError:
            return 0

    def interfaces(self) -> Mapping[int, str]:
        """Return index to name."""
        return dict(self._namespace.run(socket.if_nameindex))

    def bridges(self) -> Mapping[int, int]:
        """Return the index of the bridge of each interface that is a bridge's port."""
        return self._namespace.run(bridge_ports)

    def _legacy(self, family: PacketFamily) -> Running:
        return self._start([f"{_program(family)}-legacy-save", "-c"])

    def _saved(self, family: PacketFamily) -> Running | None:
        program = f"{_program(family)}-nft-save"
        return None if commands.find(program) is None else self._start([program, "-c"])

    def _listed(self) -> Running | None:
        if commands.find("nft") is None:
            return None
        return self._start(["nft", "-a", "-y", "list", "ruleset"])

    def _start(self, arguments: Sequence[str]) -> Running:
        what = f"cannot read the rules of {self._namespace} ({arguments[0]})"
        return commands.start(arguments, what=what, namespace=self._namespace)


def present() -> Present:
    """Return which engines have tables in the calling thread's namespace; makes none."""
    legacy = frozenset(family for family in PacketFamily if legacy_rules.tables(family))
    try:
        with NftSocket() as nft:
            nft.generation()
            tables = nft.tables()
    except NotSupportedError:
        tables = []
    users = (table for table in tables if not table.text(1).startswith(OWN_TABLE))
    return Present(legacy, frozenset(table.family for table in users))


def _program(family: PacketFamily) -> str:
    return "iptables" if family is PacketFamily.IPV4 else "ip6tables"
