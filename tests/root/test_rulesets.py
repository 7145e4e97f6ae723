"""Reading rules changes nothing, and finds those of both backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipttrace.netfilter import Backend, ChainRef, PacketFamily, TableFamily
from ipttrace.ruleset import Counter, Ruleset
from ipttrace.system.rulesets import NamespaceRules
from tests.root.kernel import Iptables, Namespaces, in_namespace, run
from tests.root.sessions import restore, send_udp

ACCEPT = ("-p", "tcp", "--dport", "80", "-j", "ACCEPT")


@pytest.fixture
def netns(namespaces: Namespaces) -> str:
    """A namespace with `lo` only."""
    return namespaces.add("read")


def rules_of(netns: str) -> NamespaceRules:
    return NamespaceRules(in_namespace(netns))


def legacy_tables(netns: str) -> str:
    paths = [Path("/proc/thread-self/net", f"{name}_tables_names") for name in ("ip", "ip6")]
    return in_namespace(netns).run(lambda: "".join(path.read_text() for path in paths))


def test_reading_makes_no_table(netns: str) -> None:
    reader = rules_of(netns)
    assert reader.read() == Ruleset()
    assert reader.backends(PacketFamily.IPV4) == {Backend.NFT}
    assert legacy_tables(netns) == ""
    assert run("nft", "list", "ruleset", netns=netns) == ""


def test_rule_counter_and_policy(netns: str, backend: Backend, family: PacketFamily) -> None:
    restore(netns, backend, family, ":PREROUTING DROP [11:660]", "[7:420] -A PREROUTING -j ACCEPT")
    ref = ChainRef(backend, family.table_family, "raw", "PREROUTING")
    chain = rules_of(netns).read(family).chains[ref]
    assert chain.policy == "DROP"
    (rule,) = chain.rules
    assert rule.text == "-A PREROUTING -j ACCEPT"
    forgets = backend is Backend.NFT and family is PacketFamily.IPV6
    # ip6tables-nft-restore 1.8.9 takes -c and does not set rules' counters.
    assert rule.counter in ([Counter(7, 420), Counter(0, 0)] if forgets else [Counter(7, 420)])
    assert (rule.handle is None) == (backend is Backend.LEGACY)


def test_only_the_family_that_is_asked_for(
    netns: str, iptables: Iptables, backend: Backend
) -> None:
    for family in PacketFamily:
        iptables(netns, family, "-A", "INPUT", *ACCEPT)
    reader = rules_of(netns)
    for family in PacketFamily:
        families = {ref.table_family for ref in reader.read(family).chains}
        assert families == {family.table_family}
        assert reader.backends(family) == {backend}
    assert len({ref.table_family for ref in reader.read().chains}) == 2


def test_native_tables_are_read_for_both_families(netns: str) -> None:
    run("nft", "add table inet mine", netns=netns)
    run("nft", "add chain inet mine in { type filter hook input priority 0; }", netns=netns)
    run("nft", "add rule inet mine in tcp dport 80 counter accept", netns=netns)
    for family in PacketFamily:
        (chain,) = rules_of(netns).read(family).chains.values()
        assert chain.ref == ChainRef(Backend.NFT, TableFamily.INET, "mine", "in")
        assert len(chain.rules) == 1
        assert rules_of(netns).backends(family) == {Backend.NFT}


def test_native_table_in_the_place_of_one_of_iptables(netns: str) -> None:
    """iptables-nft-save refuses such a table; nft still lists it."""
    chain = "{ type filter hook input priority -7; }"
    run("nft", "add table ip filter", netns=netns)
    run("nft", f"add chain ip filter INPUT {chain}", netns=netns)
    run("nft", "add rule ip filter INPUT ip saddr { 198.51.100.7, 198.51.100.9 } drop", netns=netns)
    (read,) = rules_of(netns).read(PacketFamily.IPV4).chains.values()
    assert len(read.rules) == 1


def test_both_backends_in_one(netns: str) -> None:
    for backend in Backend:
        Iptables(backend)(netns, PacketFamily.IPV4, "-A", "INPUT", *ACCEPT)
    reader = rules_of(netns)
    assert reader.read(PacketFamily.IPV4).backends() == frozenset(Backend)
    assert reader.backends(PacketFamily.IPV4) == frozenset(Backend)


def test_interfaces(netns: str) -> None:
    assert dict(rules_of(netns).interfaces()) == {1: "lo"}


def test_conntrack_entries(netns: str, iptables: Iptables, family: PacketFamily) -> None:
    reader = rules_of(netns)
    assert reader.conntrack_entries() == 0
    iptables(netns, family, "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
    send_udp(netns, family)
    assert reader.conntrack_entries() > 0
