"""How much a snapshot holds of a host, in words."""

from __future__ import annotations

from collections.abc import Iterator

from ipttrace.lab.host_state import Snapshot
from ipttrace.lab.nft_tables import count_rules, native_tables
from ipttrace.render.text import counted

OF_NFT = {"iptables-nft": "ip", "ip6tables-nft": "ip6"}
"""The families of the tables of nf_tables that each program writes."""


def held(snapshot: Snapshot) -> Iterator[str]:
    """Yield how much there is of each kind."""
    yield counted(len(snapshot.links), "interface")
    yield counted(len(snapshot.routes), "route")
    yield counted(len(snapshot.policy), "routing rule")
    saved = [each for each in snapshot.rules if each.program not in ("nft", "ipset")]
    rules = sum(_is_rule(line) for each in saved for line in each.lines)
    yield f"{counted(rules, 'rule')} of iptables"
    others = {
        (OF_NFT[each.program], line[1:])
        for each in saved
        if each.program in OF_NFT
        for line in each.lines
        if line.startswith("*")
    }
    tables = native_tables(snapshot.saved("nft"), others)
    if tables:
        native = counted(sum(map(count_rules, tables)), "rule")
        yield f"{native} in {counted(len(tables), 'native table')} of nftables"
    yield counted(len(snapshot.listeners), "listening socket")


def _is_rule(line: str) -> bool:
    return line.lstrip("[0123456789:] ").startswith("-A ")
